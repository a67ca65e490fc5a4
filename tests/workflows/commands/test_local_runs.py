"""``argotune ls, status, logs, stop`` and ``report`` of local runs."""

from __future__ import annotations

import json
import subprocess
import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from argo_run import ArgoRun
from kubernetes_server import KubernetesServer
from runner_documents import EXIT, PRINT, QUICK, dag, leaf, task, wait_for, workflow

from workflows import runner
from workflows.cli import main
from workflows.runner import local_runs

DRIVER = Path(__file__).parents[1] / "runner_driver.py"
REPORT = "import os, sys; os.makedirs(sys.argv[1]); open(sys.argv[1] + '/report.html', 'w').write('<p>')"
HOLD = "import time; print('holding', flush=True); time.sleep(600)"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the runs, without a cluster."""
    monkeypatch.setenv("ARGOTUNE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ARGO_SERVER", "KUBERNETES_SERVICE_HOST", "ARGOTUNE_SITE", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "runs"


def document(tune: str = PRINT, *args: str) -> dict[str, Any]:
    """A Workflow of the Workspace ``oncall`` whose exit handler writes a report."""
    work = {"volumeMounts": [{"name": "work", "mountPath": "/mnt/work"}]}
    result = workflow(
        dag(task("download"), task("tune", depends="download")),
        leaf("download", PRINT, "10 rows"),
        leaf("tune", tune, *args),
        leaf("report", REPORT, "/mnt/work/report", container=work),
        onExit="report",
    )
    result["metadata"]["labels"]["argotune.dev/workspace"] = "oncall"
    return result


def start(runs: Path, name: str, *tune: str) -> None:
    runner.start(document(*(tune or (PRINT, "loss 1"))), runs / name, name=name, timing=QUICK)


@pytest.fixture
def held(runs: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run in another process whose step ``tune`` does not end."""
    (tmp_path / "document.json").write_text(json.dumps(document(HOLD)))
    words = [sys.executable, str(DRIVER), "start", str(runs / "killed"), str(tmp_path / "document.json")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = runs / "killed" / "nodes" / "tune" / "attempt-1.log"
    wait_for(lambda: log.exists() and "holding" in log.read_text(), "the step to hold")
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    "command", [["status", "old"], ["logs", "old"], ["logs"], ["report"], ["stop", "old"], ["chat", "?"]]
)
def test_a_run_of_another_folder_names_the_folder(
    command: list[str], runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARGOTUNE_RUNS", "elsewhere")
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"in {Path.cwd()}/elsewhere/" in error and "pass --runs-dir DIRECTORY" in error


def test_without_a_cluster_local_runs_are_listed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    stderr = capsys.readouterr().err
    assert stderr == f"no runs in {runs}/; no cluster: {runs.parent / 'no-kubeconfig'} not found\n"
    start(runs, "old")
    start(runs, "new", EXIT, "2")
    (runs / "no-run").mkdir()
    (runs / "broken").mkdir()
    (runs / "broken" / "state.json").write_text("{")
    capsys.readouterr()
    assert main(["ls"]) == 0
    head, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert head[:2] == ["NAME", "WHERE"]
    assert [row[:2] + row[5:6] for row in rows] == [["new", "local", "False"], ["old", "local", "True"]]
    assert main(["ls", "-o", "json"]) == 0
    assert [(run["name"], run["where"]) for run in json.loads(capsys.readouterr().out)] == [
        ("new", "local"),
        ("old", "local"),
    ]
    assert main(["ls", "--cluster"]) == 2


def test_local_runs_and_those_of_a_cluster_are_listed_together(
    cluster: KubernetesServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.put(ArgoRun(name="remote").now())
    start(tmp_path / "runs", "mine")
    assert main(["ls"]) == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert sorted(rows[1:]) == [["mine", "local"], ["remote", "cluster"]]
    assert main(["ls", "-n", "argotune", "-o", "name"]) == 0
    assert capsys.readouterr().out == "remote\n"
    assert main(["status", "remote", "-o", "name"]) == 0
    assert main(["status", "mine", "-o", "name"]) == 0
    assert main(["status", "mine", "--cluster"]) == 2
    cluster.close()
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert main(["ls"]) == 1
    shown = capsys.readouterr()
    assert "mine" in shown.out and "error: " in shown.err


def test_status_shows_steps_cause_and_report(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(runs, "oncall-1")
    start(runs, "oncall-2", "import sys; print('error: no rows\\nfix: add rows', file=sys.stderr); sys.exit(2)")
    for name in ("oncall-2", "oncall", "@latest", str(runs / "oncall-2")):
        assert main(["status", name]) == 0
        out, err = capsys.readouterr()
        assert [line.split()[:2] for line in out.splitlines() if line][2:6] == [
            ["STEP", "STATE"],
            ["download", "Succeeded"],
            ["tune", "Failed"],
            ["onExit", "Succeeded"],
        ]
        assert err == "oncall-2: tune failed: exit code 2: no rows\n    fix: add rows\n"
        assert f"report: {runs / 'oncall-2' / 'volumes' / 'work' / 'report' / 'report.html'}" in out
    assert main(["status", "oncall-2", "--watch"]) == 2
    assert main(["status", "oncall-1", "-o", "json"]) == 0
    assert main(["status", "nope"]) == 2


def test_logs_are_printed_by_step(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(runs, "oncall-1")
    assert main(["logs", "oncall-1"]) == 0
    assert capsys.readouterr().out == "[download] 10 rows\n[tune] loss 1\n"
    assert main(["logs", "@latest", "--step", "tune", "-f"]) == 0
    assert capsys.readouterr() == ("loss 1\n", "oncall-1: Succeeded\n")
    assert main(["logs", "oncall-1", "--step", "nope"]) == 2
    assert "use one of download, tune" in capsys.readouterr().err


def test_a_running_run_is_followed_and_stopped(
    runs: Path, held: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "killed"]) == 0
    assert "tune       Running" in capsys.readouterr().out
    assert main(["report", "killed"]) == 2
    assert "wait until it ends" in capsys.readouterr().err
    words = [sys.executable, "-m", "workflows.cli", "logs", "killed", "-f"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        assert follower.stdout and follower.stdout.readline() == "[download] 10 rows\n"
        assert main(["stop", "killed"]) == 0
        assert "stopping killed; its exit handler still runs: argotune status killed" in capsys.readouterr().out
        assert follower.stderr
        out, err = follower.stdout.read(), follower.stderr.read()
    assert out == "[tune] holding\n"
    assert err.startswith("killed: Cancelled: stopped by SIGTERM")
    assert held.wait(300) == 5
    assert main(["report", "killed"]) == 0


def test_a_run_whose_runner_was_killed_is_interrupted(
    runs: Path, held: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    held.kill()
    held.wait()
    assert main(["status", "killed", "-o", "wide"]) == 0
    out, err = capsys.readouterr()
    assert "Interrupted" in out
    assert err == "killed: its runner has ended; resume it with argotune run FILE --resume\n"
    assert main(["status", "killed", "--watch"]) == 1
    found = local_runs.find_run(runs, "killed")
    assert found and not found.is_active
    assert main(["stop", "killed"]) == 0
    assert "no server is running" in capsys.readouterr().out


@pytest.mark.parametrize("display", [True, False])
def test_the_report_is_opened_where_there_is_a_display(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, display: bool
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(sys, "platform", "linux")
    if display:
        monkeypatch.setenv("DISPLAY", ":0")
    assert main(["report"]) == 2
    start(runs, "oncall-1")
    capsys.readouterr()
    assert main(["report"]) == 0
    path = runs / "oncall-1" / "volumes" / "work" / "report" / "report.html"
    assert capsys.readouterr().out == f"{path}\n"
    assert opened == ([path.as_uri()] if display else [])
    assert main(["report", "oncall", "--no-open"]) == 0
    assert len(opened) == int(display)
    assert main(["report", "nope"]) == 2
    assert "use one of oncall-1" in capsys.readouterr().err
