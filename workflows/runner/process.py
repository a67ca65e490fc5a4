"""The process of an attempt: it runs in its own process group, logs to a file, and ends with its children.

A daemon that a step starts in its own session, such as a server, is not ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from steps.runtime import lifetime
from steps.runtime.process_identity import process_identity

MARKER = "ARGOTUNE_NODE"
"""Environment variable that identifies the orphaned processes of a runner that died."""

_MAX_LINES = 60
_POLL = 0.02


class Process:
    """A running command; call ``poll`` until it returns an exit code."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        log: Path,
        stdout: Path | None = None,
    ) -> None:
        """Start ``argv``; standard output goes to ``log``, or to ``stdout`` when set.

        Raises:
            OSError: it cannot be started.
        """
        with contextlib.ExitStack() as stack:
            to_log = stack.enter_context(log.open("ab"))
            to_stdout = stack.enter_context(stdout.open("wb")) if stdout else to_log
            self._popen = subprocess.Popen(
                argv,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=to_stdout,
                stderr=to_log,
                start_new_session=True,
                preexec_fn=lifetime.die_with_parent(os.getpid()),
            )
        self.id = self._popen.pid
        self.identity = process_identity(self.id)

    def poll(self) -> int | None:
        """Return the exit code as in a pod (143 for a process ended by signal 15); None while it runs."""
        code = self._popen.poll()
        if code is None:
            return None
        # As in a container: when the first process ends, the others of its group end too.
        self.kill()
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """Send SIGTERM."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.id, signal.SIGKILL)


class LogReader:
    """Passes the lines of a growing file to a callback, and keeps the last ones."""

    def __init__(self, path: Path, on_line: Callable[[str], None]) -> None:
        self._file: IO[bytes] = path.open("rb")
        self._on_line = on_line
        self._rest = b""
        self.last: deque[str] = deque(maxlen=_MAX_LINES)

    def read(self, *, final: bool = False) -> None:
        """Pass on the new lines; ``final`` includes a last line without line break and closes the file."""
        # Progress bars end a line with a carriage return.
        data = (self._rest + self._file.read()).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._rest = data.split(b"\n")
        if final:
            lines, self._rest = [*lines, self._rest], b""
            self._file.close()
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            if text:
                self.last.append(text)
                self._on_line(text)


def kill_orphans(markers: Mapping[str, tuple[int | None, str]], grace: float) -> int:
    """End the processes that a dead runner left behind, and return their number.

    Args:
        markers: process group, and identity of its first process, by the marker of each node. A process is an
            orphan if it carries the marker and is in the group, or if it is the first process.
        grace: seconds between SIGTERM and SIGKILL.
    """
    orphans = [process for process in psutil.process_iter() if _is_orphan(process, markers)]
    for process in orphans:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    for process in _wait_for_exit(orphans, grace):
        with contextlib.suppress(psutil.Error):
            process.kill()
    _wait_for_exit(orphans, grace)
    return len(orphans)


def _wait_for_exit(processes: Sequence[psutil.Process], grace: float) -> list[psutil.Process]:
    """Wait up to ``grace`` seconds for all processes to end; return those that still run."""
    until = time.monotonic() + grace
    while alive := [process for process in processes if _is_running(process)]:
        if time.monotonic() >= until:
            break
        time.sleep(_POLL)
    return alive


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is_orphan(process: psutil.Process, markers: Mapping[str, tuple[int | None, str]]) -> bool:
    try:
        if process.pid == os.getpid():
            return False
        if any(process.pid == first and _is_same(first, identity) for first, identity in markers.values()):
            return True
        group, _ = markers.get(process.environ().get(MARKER, ""), (None, ""))
        return group is not None and os.getpgid(process.pid) == group
    except (psutil.Error, OSError):
        return False


def _is_same(pid: int, identity: str) -> bool:
    """Return True if the process has this identity; False for one whose identity was never recorded."""
    return bool(identity) and process_identity(pid) == identity
