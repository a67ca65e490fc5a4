"""Orphans of a dead runner, by the identity of their process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from steps.runtime.process_identity import process_identity
from workflows.runner.process import Process, kill_orphans

OTHER_NODE = "another node"


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    """A process without the marker of its node, so that only its identity can match."""
    process = Process(["sleep", "600"], folder=tmp_path, environment=dict(os.environ), log=tmp_path / "log")
    yield process
    process.kill()


def test_an_orphan_is_found_after_the_system_clock_was_corrected(
    sleeper: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + 0.01)
    assert kill_orphans({OTHER_NODE: (sleeper.id, sleeper.identity)}, 5) == 1


@pytest.mark.parametrize("identity", ["", "an earlier boot:1"])
def test_a_process_that_reused_the_id_is_not_killed(sleeper: Process, identity: str) -> None:
    assert kill_orphans({OTHER_NODE: (sleeper.id, identity)}, 5) == 0
    assert sleeper.poll() is None


def test_a_process_that_ended_has_no_identity_before_its_parent_reads_the_exit_code(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"], cwd=tmp_path)
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert process_identity(ended.pid) == ""
    ended.wait()
