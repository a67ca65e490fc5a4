from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from free_ports import free_port
from served_files import file_server

from steps.serving import server
from steps.serving.server import Server
from workflows.cli import main


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARGOTUNE_RUNS", raising=False)
    (tmp_path / "runs").mkdir()
    yield tmp_path / "runs"
    for record in (tmp_path / "runs").glob("*/volumes/*/serve/*.json"):
        server.stop(record, grace=0)


@pytest.fixture
def serve(runs: Path) -> Callable[..., Server]:
    def start(run: str, name: str = server.RECORD) -> Server:
        record = runs / run / "volumes" / "work" / "serve" / name
        record.parent.mkdir(parents=True, exist_ok=True)
        command = file_server(record.parent, ["base"], free_port())
        started = server.start(command, record, record.parent / "server.log", os.environ)
        server.wait_until_healthy(started, record.parent / "server.log", 120)
        return started

    return start


def test_the_only_server_needs_no_name(serve: Callable[..., Server], capsys: pytest.CaptureFixture[str]) -> None:
    started = serve("one")
    assert main(["stop"]) == 0
    assert capsys.readouterr().out == f"stopped one at {started.endpoint}\n"
    assert not server.is_alive(started)
    assert main(["stop"]) == 0
    assert capsys.readouterr().out == f"no server is running for the runs in {Path.cwd()}/runs/\n"


def test_one_of_several_must_be_named(serve: Callable[..., Server], capsys: pytest.CaptureFixture[str]) -> None:
    one, two = serve("one"), serve("two")
    assert main(["stop"]) == 2
    assert "several runs are served: one, two" in capsys.readouterr().err
    assert server.is_alive(one) and server.is_alive(two)
    assert main(["stop", "two"]) == 0
    assert server.is_alive(one) and not server.is_alive(two)
    assert main(["stop", "runs/one"]) == 0
    assert not server.is_alive(one)


def test_all_stops_also_starting_servers(serve: Callable[..., Server]) -> None:
    servers = [serve("one"), serve("one", server.STARTING), serve("two")]
    assert main(["stop", "--all"]) == 0
    assert not any(server.is_alive(item) for item in servers)


def test_another_folder_of_runs(
    serve: Callable[..., Server], runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = serve("one")
    runs.rename(tmp_path / "elsewhere")
    assert main(["stop", "--all"]) == 0
    assert server.is_alive(started)
    assert main(["stop", "--runs-dir", str(tmp_path / "elsewhere")]) == 0
    assert not server.is_alive(started)


def test_an_unknown_run_and_a_run_with_all_are_bad_input(
    serve: Callable[..., Server], capsys: pytest.CaptureFixture[str]
) -> None:
    started = serve("one")
    assert main(["stop", "nope"]) == 2
    assert "use one of one" in capsys.readouterr().err
    assert main(["stop", "one", "--all"]) == 2
    assert server.is_alive(started)


def test_an_unknown_run_without_a_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARGOTUNE_RUNS", str(tmp_path / "runs"))
    assert main(["stop", "nope"]) == 2
    error = capsys.readouterr().err
    assert f"not found in {tmp_path}/runs/" in error and "pass --runs-dir DIRECTORY, or add --cluster" in error


def test_chat_reports_what_is_missing(serve: Callable[..., Server], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "hello"]) == 2
    assert (
        f"no run is served in {Path.cwd()}/runs/\n    fix: run argotune run FILE; or change to the folder"
        in capsys.readouterr().err
    )
    serve("one")
    assert main(["chat", "--model", "nope", "hello"]) == 2
    assert "'nope' is not served" in capsys.readouterr().err
    serve("two")
    assert main(["chat", "hello"]) == 2
    assert "several runs are served" in capsys.readouterr().err


def test_chat_reports_an_error_of_the_server(serve: Callable[..., Server], capsys: pytest.CaptureFixture[str]) -> None:
    serve("one")  # a file server rejects POST
    assert main(["chat", "hello"]) == 1
    assert "base returned HTTP 501" in capsys.readouterr().err
