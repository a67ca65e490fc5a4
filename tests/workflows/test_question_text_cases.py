"""The question of each Workspace in ``tests/data/cases/question_text`` reaches the server as written."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trainable_model
import yaml
from hypothesis import given
from hypothesis import strategies as st

from steps.rollout.settings import Settings
from steps.runtime import entrypoint
from steps.serving import serving_client
from workflows.argo.workflow import Container
from workflows.compile import emit
from workflows.compile.arguments import arguments
from workflows.compile.dag import compile_workflow
from workflows.load_plans import load_plans
from workflows.runner import launch
from workflows.runner.volumes import Folder, Mounts

CASES = sorted((Path(__file__).parents[1] / "data" / "cases" / "question_text").glob("*.yaml"))
OUTPUTS = {"inputs.parameters.image-digest": "sha256:0", "inputs.parameters.image-reference": "r.io/a:1"}


def question_of(file: Path) -> str:
    written: str = next(yaml.safe_load_all(file.read_text()))["pipeline"]["rollout"]["question"]
    return written


@contextmanager
def serve_prompts() -> Iterator[str]:
    """Serve chats, answered by the prompt that the model would get; yield the address."""
    tokenizer = trainable_model.make_tokenizer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            ids = tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=True)
            content = {"choices": [{"message": {"content": tokenizer.decode(ids["input_ids"])}}]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def rollout(document: dict[str, Any]) -> dict[str, Any]:
    [container] = [item["container"] for item in document["spec"]["templates"] if item["name"] == "rollout"]
    return dict(container)


def launched(container: dict[str, Any]) -> list[str]:
    """Return the command line that the local runner starts."""
    paths = {mount["mountPath"] for mount in container["volumeMounts"]}
    folders = [Folder(path, Path("/home/me") / path[1:], path.startswith("/mnt")) for path in paths]
    mounts = Mounts(sorted(folders, key=lambda folder: len(folder.path), reverse=True))
    return launch.words(Container.model_validate(container), mounts, OUTPUTS, {})


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_the_question_reaches_the_server_as_written(file: Path) -> None:
    [plan] = load_plans(str(file))
    document = compile_workflow(plan)
    for read in (yaml.safe_load(emit.to_yaml(document)), json.loads(json.dumps(document))):
        words = launched(rollout(read))
        settings = entrypoint.parse(Settings, words[3:], "rollout")
        assert settings.question == question_of(file)
        assert settings.work == Path("/home/me/mnt/work"), "paths are translated"


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_the_question_is_the_input_of_the_model(file: Path, tmp_path: Path) -> None:
    [plan] = load_plans(str(file))
    settings = entrypoint.parse(Settings, launched(rollout(compile_workflow(plan)))[3:], "rollout")
    with serve_prompts() as address:
        prompt = serving_client.complete(address, "tuned", settings.question, 8, 60)
    expected = f"<|im_start|>user\n{question_of(file)}<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.endswith(expected)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
@pytest.mark.parametrize("prefix", ["", "/mnt/work", "--work", "--work=", "-", "--", '["/tmp/', "@", "$(", "$$("])
def test_any_text_is_one_argument(prefix: str, text: str) -> None:
    settings = Settings(work=Path("/mnt/work"), name="a", model="m", question=prefix + text)
    assert entrypoint.parse(Settings, arguments(settings), "rollout").question == prefix + text
