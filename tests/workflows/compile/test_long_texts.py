"""Texts that do not fit into an argument travel as files: arguments of steps, and URLs that people set."""

from __future__ import annotations

import json
import random
import stat
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from plan_samples import BASE, PLANS, ROLLOUT, TUNING, compiled
from runner_documents import QUICK, dag, leaf, log_of, task, workflow
from trainable_model import chat_rows, write_rows
from workspace_sample import GOOD, URL, write

from steps.preflight.settings import Settings as Preflight
from steps.runtime import entrypoint
from workflows import runner
from workflows.compile import arguments, kinds, settings
from workflows.errors import InvalidInput
from workflows.load_plans import load_plans
from workflows.plan.layers import Layer, merge
from workflows.plan.overrides import check_parameters

LONG_URLS = 108
ARGUMENT_BYTES = 131_072
"""Bytes of an argument that Linux rejects (MAX_ARG_STRLEN, with the final NUL)."""
SHOW = "import os, sys; print(oct(os.stat(sys.argv[1]).st_mode & 0o777), len(open(sys.argv[1]).read()))"


def template(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in document["spec"]["templates"] if item["name"] == name)


def raw_inputs(document: dict[str, Any], name: str) -> dict[str, str]:
    return {item["path"]: item["raw"]["data"] for item in template(document, name)["inputs"].get("artifacts", [])}


def largest_argument(document: dict[str, Any]) -> int:
    containers = [item["container"] for item in document["spec"]["templates"] if "container" in item]
    return max(len(word.encode()) for container in containers for word in container.get("args", []))


@pytest.mark.parametrize(
    ("values", "step", "flag"),
    [
        ({"rollout.question": f"$(HF_TOKEN) {'long ' * 28_000}?"}, "rollout", "question"),
        ({"tuning.trainingArguments": {"run_name": "x" * ARGUMENT_BYTES}}, "tune", "training-arguments"),
        ({"tuning.trainingArguments": {"run_name": "x" * ARGUMENT_BYTES}}, "dryrun", "training-arguments"),
    ],
)
def test_a_long_text_is_a_file(values: dict[str, Any], step: str, flag: str) -> None:
    document = compiled(BASE | TUNING | ROLLOUT | values)
    path = f"/mnt/scratch/inputs/{flag}"
    args = template(document, step)["container"]["args"]
    assert args[args.index(f"--{flag}-file") + 1] == path and f"--{flag}" not in args
    [value] = values.values()
    text = raw_inputs(document, step)[path]
    assert (text if isinstance(value, str) else json.loads(text)) == value
    assert largest_argument(document) < ARGUMENT_BYTES


@pytest.mark.parametrize("values", PLANS.values(), ids=PLANS)
def test_a_step_reads_files_as_the_same_settings(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arguments, "MAX_TEXT_BYTES", -1)
    compiled_settings = settings.preflight(merge([Layer("test", values)]))
    args, files = arguments.long_texts(arguments.arguments(compiled_settings), (), str(tmp_path))
    assert len(args) == 2 * len(files)
    for path, text in files.items():
        Path(path).write_text(text)
    assert entrypoint.parse(Preflight, args, "preflight") == compiled_settings


def test_an_unreadable_file_and_a_second_value_are_reported(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff")
    for path, message in (("gone", "No such file or directory"), ("bytes", "'utf-8' codec can't decode")):
        with pytest.raises(entrypoint.BadInput, match=f"--urls-file: cannot read .*{path}: {message}"):
            entrypoint.parse(Preflight, ["--work", "w", "--urls-file", str(tmp_path / path)], "preflight")
    with pytest.raises(entrypoint.BadInput, match="--urls-file: duplicate flag"):
        entrypoint.parse(Preflight, ["--work", "w", "--urls", "[]", "--urls-file", "x"], "preflight")


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files, whatever the query is."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def file_server(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path)))
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_many_long_urls_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_server: str) -> None:
    """From the plan to the rows; neither ``RUN/nodes`` nor the documents have the queries afterwards."""
    monkeypatch.setenv("ARGOTUNE_HOME", str(tmp_path / "home"))
    write_rows(tmp_path / "a.parquet", chat_rows(2))
    queries = [f"?n={number}&sig={random.Random(number).randbytes(650).hex()}" for number in range(LONG_URLS)]
    urls = [f"{file_server}/a.parquet{query}" for query in queries]
    document = compiled(BASE | TUNING | {"data.urls": urls, "data.allowPrivateHosts": True})
    assert largest_argument(document) < ARGUMENT_BYTES
    download = template(document, "download")
    urls_argument = {"data-urls": "{{workflow.parameters.data-urls}}"}
    document["spec"] |= {"templates": [dag(task("download", arguments=urls_argument)), download], "entrypoint": "main"}
    document["spec"].pop("onExit")
    outcome = runner.start(document, tmp_path / "run", name="test", timing=QUICK)
    assert outcome.phase == "Succeeded", log_of(tmp_path / "run", "download")
    manifest = json.loads((tmp_path / "run/volumes/work/dataset/manifest.json").read_text())
    assert manifest["rows"] + manifest["eval_rows"] == 2 * LONG_URLS
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not [path for path in written if b"sig=" in path.read_bytes() and queries[0].encode() in path.read_bytes()]


def test_a_workflow_that_kubernetes_cannot_store_is_refused(tmp_path: Path) -> None:
    urls = "".join(f"      - https://a.example/{i}?{'x' * 1300}\n" for i in range(800))
    [plan] = load_plans(str(write(tmp_path, GOOD.replace(URL, urls))))
    with pytest.raises(InvalidInput, match=r"the Workflow has [0-9,]+ bytes; Kubernetes stores at most 1,048,576"):
        kinds.compile_as(plan)


def test_urls_that_are_set_on_submission_have_any_length() -> None:
    document = {"metadata": {"labels": {"app.kubernetes.io/managed-by": "argotune"}}}
    check_parameters(document, {"data-urls": json.dumps([f"https://a.example/{'x' * 140_000}"])})


def test_a_file_exists_while_the_attempt_runs_for_its_owner_only(tmp_path: Path) -> None:
    artifact = {"name": "text", "path": "/mnt/scratch/inputs/text", "raw": {"data": "{{workflow.parameters.text}}"}}
    container = {"volumeMounts": [{"name": "scratch", "mountPath": "/mnt/scratch"}]}
    show = leaf("show", SHOW, artifact["path"], container=container, inputs={"artifacts": [artifact]})
    document = workflow(dag(task("show")), show, parameters={"text": "x" * 300_000})
    killed = tmp_path / "run/nodes/show/attempt-0/volumes/scratch/inputs/text"
    killed.parent.mkdir(parents=True)
    killed.touch()  # of an attempt that was killed with its runner
    outcome = runner.start(document, tmp_path / "run", name="test", timing=QUICK)
    assert outcome.phase == "Succeeded"
    assert log_of(tmp_path / "run", "show").split() == [oct(stat.S_IRUSR | stat.S_IWUSR), "300000"]
    assert not list((tmp_path / "run/nodes").rglob("text"))


def test_a_file_on_a_volume_stays_for_other_pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGOTUNE_HOME", str(tmp_path / "home"))
    artifact = {"name": "text", "path": "/mnt/scratch/text", "raw": {"data": "hello"}}
    container = {"volumeMounts": [{"name": "shared", "mountPath": "/mnt/scratch"}]}
    show = leaf("show", SHOW, artifact["path"], container=container, inputs={"artifacts": [artifact]})
    document = workflow(dag(task("show")), show)
    document["spec"]["volumes"] = [{"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}]
    outcome = runner.start(document, tmp_path / "run", name="test", timing=QUICK)
    assert outcome.phase == "Succeeded"
    assert [file.read_text() for file in tmp_path.rglob("text")] == ["hello"]


def test_a_file_is_deleted_if_its_step_cannot_start(tmp_path: Path) -> None:
    artifact = {"name": "text", "path": "/mnt/scratch/inputs/text", "raw": {"data": "hello"}}
    container = {"volumeMounts": [{"name": "scratch", "mountPath": "/mnt/scratch"}], "command": ["no-such-program"]}
    show = leaf("show", SHOW, artifact["path"], container=container, inputs={"artifacts": [artifact]})
    outcome = runner.start(workflow(dag(task("show")), show), tmp_path / "run", name="test", timing=QUICK)
    assert outcome.phase != "Succeeded"
    assert not list((tmp_path / "run/nodes").rglob("text"))
