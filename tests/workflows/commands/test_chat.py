"""``argotune chat`` sends an API key: of a file, of the environment, or of the run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import adapter_server
import pytest
from free_ports import free_port

from steps.serving import server, serving_client
from steps.serving.server import Server
from workflows.cli import main

ALICE, BOB, OTHER = "alice-0123456789", "bob-0123456789abc", "other-0123456789"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "alice").write_text(ALICE)
    (folder / "bob").write_text(BOB)
    return folder


@pytest.fixture(autouse=True)
def served(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server of a run that requires the keys of a folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("ARGOTUNE_RUNS", "ARGOTUNE_API_KEY", "ARGOTUNE_API_KEYS", "VLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "runs" / "one" / "volumes" / "work" / "serve"
    folder.mkdir(parents=True)
    port = free_port()
    command = [sys.executable, adapter_server.__file__, "--host", server.HOST, "--port", str(port)]
    record = Server(
        kind="transformers", endpoint=f"http://{server.HOST}:{port}", models=["base"], command=command,
        settings="", mark=f"chat-{port}", api_keys=str(keys),
    )  # fmt: skip
    paths = os.pathsep.join(path for path in sys.path if path)
    variables = {"ARGOTUNE_API_KEYS": str(keys), "ARGOTUNE_ADAPTERS": str(folder / "none.json"), "PYTHONPATH": paths}
    running = server.start(record, folder / server.RECORD, folder / "server.log", {**os.environ, **variables})
    with monkeypatch.context() as patch:
        patch.setenv("ARGOTUNE_API_KEY", ALICE)
        server.wait_until_healthy(running, folder / "server.log", 120)
    yield running
    server.stop(folder / server.RECORD, grace=0)


def test_the_keys_of_the_run_are_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "hello"]) == 0
    assert capsys.readouterr().out == "I am base.\n"


def test_a_file_comes_before_the_environment_and_both_before_the_run(
    keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARGOTUNE_API_KEY", OTHER)
    assert main(["chat", "hello"]) == 1
    message = capsys.readouterr().err
    assert "HTTP 401: the API key is missing or not valid" in message and "set ARGOTUNE_API_KEY" in message
    assert OTHER not in message
    assert main(["chat", "--api-key-file", str(keys / "bob"), "hello"]) == 0


@pytest.mark.parametrize(("content", "problem"), [(None, "No such file"), ("", "it is empty"), ("abc", "shorter")])
def test_a_file_without_a_key_is_bad_input(
    tmp_path: Path, content: str | None, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    assert main(["chat", "--api-key-file", str(file), "hello"]) == 2
    message = capsys.readouterr().err
    assert f"--api-key-file: no API key in {file}" in message and problem in message


def test_the_key_is_needed(served: Server) -> None:
    with pytest.raises(serving_client.Unauthorized):
        serving_client.list_models(served.endpoint)
