"""``argotune bench`` with a recorded result of vLLM's client; tests/steps/serving/test_real_benchmark.py runs it."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from argo_run import ArgoRun
from kubernetes_server import KubernetesServer, condition
from runner_documents import PRINT, QUICK, dag, leaf, task, workflow

from steps.kubernetes.connection import Connection
from steps.report.settings import Settings
from steps.report.step import report
from steps.runtime.process_identity import process_identity
from steps.serving import server, server_command
from steps.serving.vllm_probe import Vllm
from workflows import runner
from workflows.cli import main

RECORDED = Path(__file__).parents[2] / "data" / "vllm_bench" / "result.json"
CONTEXT = 1024
# Does what `vllm bench serve` does with its flags: writes the recorded result, and its arguments next to it.
CLIENT = """#!{python}
import json, os, pathlib, sys
flags = dict(word[2:].split("=", 1) for word in sys.argv[3:] if "=" in word)
key = os.environ.get("OPENAI_API_KEY", "")
pathlib.Path({folder!r}, "seen.json").write_text(json.dumps([sys.argv[1:3], flags, key]))
if os.environ.get("BENCH_ERROR"):
    sys.exit("ValueError: no tokenizer")
pathlib.Path(flags["result-dir"], flags["result-filename"]).write_bytes(pathlib.Path({result!r}).read_bytes())
"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        cards = [{"id": "base", "max_model_len": CONTEXT}, {"id": "oncall", "max_model_len": None}]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": cards}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a model server."""
    monkeypatch.delenv("ARGOTUNE_API_KEY", raising=False)
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield http.server_port
    http.shutdown()
    http.server_close()


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A vLLM whose client replays ``result.json`` in this folder."""
    (tmp_path / "result.json").write_bytes(RECORDED.read_bytes())
    script = tmp_path / "vllm"
    paths = {"folder": str(tmp_path), "result": str(tmp_path / "result.json")}
    script.write_text(CLIENT.format(python=sys.executable, **paths))
    script.chmod(0o755)
    monkeypatch.setattr(server_command, "find_vllm", lambda: Vllm("cpu", (str(script), "serve")))
    return tmp_path


@pytest.fixture
def served(tmp_path: Path, port: int, client: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work folder of a local run that serves a model."""
    monkeypatch.setenv("ARGOTUNE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))
    document = workflow(dag(task("tune")), leaf("tune", PRINT, "loss 1"))
    document["metadata"]["labels"]["argotune.dev/workspace"] = "oncall"
    runner.start(document, tmp_path / "runs" / "one", name="one", timing=QUICK)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    work = tmp_path / "runs" / "one" / "volumes" / "work"
    record = {"settings": {"preset": "base", "model": str(tmp_path / "base"), "revision": ""}}
    write_json(work / "results" / "rollout.json", record)
    write_report(work, tmp_path / "plan.json")
    running = server.Server(
        "vllm", f"http://127.0.0.1:{port}", ["base", "oncall"], [], "", "bench", os.getpid(),
        process_identity(os.getpid()),
    )  # fmt: skip
    server.write(work / "serve" / server.RECORD, running)
    return work


def write_report(work: Path, plan: Path) -> None:
    """Write the report as the step does, whose plan is a file that is deleted with its pod."""
    write_json(plan, {"name": "oncall", "tuning": {"rank": 77}})
    report(Settings(work=work, status="Succeeded", plan=plan))
    plan.unlink()
    write_json(work / "results" / "report.json", {"settings": {"work": str(work), "plan": str(plan)}})


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def recorded() -> Any:
    return json.loads(RECORDED.read_text())


def test_the_result_is_in_status_and_report(served: Path, client: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "oncall", "--requests", "6", "--concurrency", "2"]) == 0
    speed = f"{recorded()['output_throughput']:.4g} output tokens/s"
    assert speed in capsys.readouterr().out
    command, flags, key = json.loads((client / "seen.json").read_text())
    assert (command, key) == (["bench", "serve"], "")
    assert (flags["model"], flags["tokenizer"]) == ("oncall", str(client / "base"))
    # Of KAITO's 2048 and 256 tokens, those that the context has space for.
    assert (flags["random-input-len"], flags["random-output-len"]) == (str(CONTEXT // 2), str(CONTEXT // 4))
    assert main(["status", "one"]) == 0
    assert f"benchmark: {speed}" in capsys.readouterr().out
    assert main(["status", "one", "-o", "json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["performance"]["metrics"]
    assert float(metrics["requestsPerSecond"]["value"]) == pytest.approx(recorded()["request_throughput"], rel=1e-4)
    assert float(metrics["timeToFirstToken"]["value"]) == pytest.approx(recorded()["median_ttft_ms"], rel=1e-4)
    page = (served / "report" / "report.html").read_text()
    assert "Benchmark of the endpoint" in page and "77" in page and "could not be read" not in page
    assert json.loads((served / "report" / "report.json").read_text())["performance"]["metrics"] == metrics


def test_the_key_of_the_server_is_an_environment_variable_of_the_client(
    served: Path, client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARGOTUNE_API_KEY", "alice-0123456789abc")
    assert main(["bench", "one", "--model", "base", "-o", "json"]) == 0
    _, flags, key = json.loads((client / "seen.json").read_text())
    assert key == "alice-0123456789abc" and key not in json.dumps(flags)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"[]", "has no number completed, failed, duration"),
        (b'{"completed": 1e999}', "has no number completed"),
        ({"completed": "many"}, "has no number completed"),
        ({"median_ttft_ms": -1}, "has no number median_ttft_ms"),
        ({"completed": 0, "errors": ["", "a\nHTTP 503"]}, "none of 100 requests was answered: HTTP 503"),
        ({"completed": 0, "errors": 3}, "no reason"),
    ],
)
def test_an_invalid_result_is_an_error_with_a_fix(
    served: Path, client: Path, capsys: pytest.CaptureFixture[str], content: Any, message: str
) -> None:
    data = content if isinstance(content, bytes) else json.dumps(recorded() | content).encode()
    (client / "result.json").write_bytes(data)
    assert main(["bench", "one"]) == 1
    shown = capsys.readouterr().err
    assert message in shown and "fix:" in shown and "unexpected" not in shown
    assert not (served / "report" / "benchmark.json").exists()


def test_a_client_that_fails_is_an_error(
    served: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_ERROR", "1")
    assert main(["bench", "one"]) == 1
    assert "vLLM's benchmark client failed: ValueError: no tokenizer" in capsys.readouterr().err


def test_a_damaged_record_is_no_benchmark(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("", "[]", "{", '{"model": 1}', "\x00"):
        (served / "report").mkdir(exist_ok=True)
        (served / "report" / "benchmark.json").write_text(text)
        assert main(["status", "one", "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["performance"] is None


def test_bad_input(served: Path, client: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "one", "--input-tokens", "1000", "--output-tokens", "100"]) == 2
    assert "1000 + 100 tokens exceed the model's context (1024)" in capsys.readouterr().err
    assert main(["bench", "one", "--model", "x"]) == 2
    monkeypatch.setattr(server_command, "find_vllm", lambda: Vllm(reason="vLLM is not installed"))
    assert main(["bench", "one"]) == 2
    assert "set ARGOTUNE_VLLM" in capsys.readouterr().err
    (served / "serve" / server.RECORD).unlink()
    assert main(["bench", "one"]) == 2
    assert "one serves no model" in capsys.readouterr().err


def test_a_run_on_a_cluster_is_annotated(
    cluster: KubernetesServer,
    port: int,
    client: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Connection, "open_port", lambda *_: socket.create_connection(("127.0.0.1", port)))
    labels = {"argotune.dev/service": "oncall"}
    spec = {"selector": labels, "ports": [{"port": 80, "targetPort": 5000}]}
    metadata = {"name": "oncall", "namespace": "argotune", "labels": labels}
    cluster.put({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    ready = {"spec": {"containers": []}, "status": {"conditions": [condition("Ready")]}}
    cluster.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, **ready})
    run = ArgoRun()
    rollout = next(item for item in run.document["spec"]["templates"] if item["name"] == "rollout")
    rollout["container"]["command"] = ["python", "-m", "steps.rollout", "--model", "/mnt/models/phi"]
    cluster.put(run.now())
    assert main(["bench", "oncall", "-n", "argotune"]) == 2
    assert "the base model /mnt/models/phi is not on this machine" in capsys.readouterr().err
    assert main(["bench", "oncall", "-n", "argotune", "--tokenizer", str(client)]) == 0
    assert main(["status", run.name, "-n", "argotune", "-o", "json"]) == 0
    out = capsys.readouterr().out
    metrics = json.loads(out[out.index("{") :])["performance"]["metrics"]
    assert float(metrics["outputTokensPerSecond"]["value"]) == pytest.approx(recorded()["output_throughput"], 1e-4)
    cluster.forbidden.add(("patch", "workflows"))
    assert main(["bench", "oncall", "-n", "argotune", "--tokenizer", str(client)]) == 0
    assert "warning: not recorded" in capsys.readouterr().err
