"""Atomic files after kills of their writers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import fork

from steps.runtime import files


def write_and_kill(path: Path) -> int:
    def alone() -> int:
        with files.replacing(path) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    return os.waitstatus_to_exitcode(os.waitpid(fork(alone), 0)[1])


@pytest.fixture
def other_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forget the folders that this process has cleaned, as a new process does."""
    return lambda: monkeypatch.setattr(files, "_cleaned", set())


def test_the_next_process_deletes_the_temporary_file_of_a_killed_one(
    tmp_path: Path, other_process: Callable[[], None]
) -> None:
    assert write_and_kill(tmp_path / "a.json") == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    (tmp_path / ".rows.arrow.partial").touch()
    (tmp_path / ".folder.1.1.partial").mkdir()
    other_process()
    files.write_text(tmp_path / "b.json", "b")
    assert {path.name for path in tmp_path.iterdir()} == {"b.json", ".rows.arrow.partial", ".folder.1.1.partial"}
    assert left.name.startswith(".a.json.")


def test_the_temporary_file_of_a_living_writer_stays(tmp_path: Path, other_process: Callable[[], None]) -> None:
    with files.replacing(tmp_path / "a.json") as file:
        file.write(b"whole")
        other_process()
        files.write_text(tmp_path / "b.json", "b")
    assert (tmp_path / "a.json").read_bytes() == b"whole"


def test_a_file_deleted_before_it_was_locked_is_created_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, deleted = files.fcntl.flock, []

    def delete_first(file: object, operation: int) -> None:
        if not deleted:
            [path] = tmp_path.iterdir()
            path.unlink()
            deleted.append(path)
        flock(file, operation)  # type: ignore[arg-type]

    monkeypatch.setattr(files.fcntl, "flock", delete_first)
    files.write_text(tmp_path / "a.json", "whole")
    assert deleted and (tmp_path / "a.json").read_text() == "whole"


@pytest.mark.parametrize("error", [BlockingIOError(11, "locked"), OSError(95, "Operation not supported")])
def test_files_are_written_where_locks_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    errors = [error]

    def fail_once(*_: object) -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr(files.fcntl, "flock", fail_once)
    files.write_text(tmp_path / "a.json", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
