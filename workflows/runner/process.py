"""One process of a leaf: started in a group of its own, its output in a file, ended with all that it started.

A daemon that a step puts in a session of its own (a server that is to stay) is left alone.
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

MARKER = "ARGOTUNE_NODE"
"""Environment variable by which processes of a dead runner are known again."""

_REMEMBERED_LINES = 60
_POLL = 0.02


class Process:
    """A running command; ``poll`` is to be called until it returns an exit code."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        log: Path,
        stdout: Path | None = None,
    ) -> None:
        """Start ``words``; standard output goes to ``log`` too, or to a file of its own.

        Raises:
            OSError: it can't be started.
        """
        with contextlib.ExitStack() as stack:
            to_log = stack.enter_context(log.open("ab"))
            to_stdout = stack.enter_context(stdout.open("wb")) if stdout else to_log
            self._popen = subprocess.Popen(
                words,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=to_stdout,
                stderr=to_log,
                start_new_session=True,
                preexec_fn=lifetime.die_with_parent(os.getpid()),
            )
        self.id = self._popen.pid
        self.created = created(self.id)

    def poll(self) -> int | None:
        """Exit code as a pod would have it (143 for a process ended by signal 15); None while it runs."""
        code = self._popen.poll()
        if code is None:
            return None
        # As when the first process of a container ends: the others of its group end with it.
        self.kill()
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """Ask it to end."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, and all of its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.id, signal.SIGKILL)


class LogReader:
    """Hands on the lines of a file as they are added, and remembers the last ones."""

    def __init__(self, path: Path, hand_on: Callable[[str], None]) -> None:
        self._file: IO[bytes] = path.open("rb")
        self._hand_on = hand_on
        self._rest = b""
        self.last: deque[str] = deque(maxlen=_REMEMBERED_LINES)

    def read(self, *, to_the_end: bool = False) -> None:
        """Hand on what was added since; ``to_the_end`` a last line without a line break, too."""
        # Progress bars write a carriage return where a line would end.
        data = (self._rest + self._file.read()).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._rest = data.split(b"\n")
        if to_the_end:
            lines, self._rest = [*lines, self._rest], b""
            self._file.close()
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            if text:
                self.last.append(text)
                self._hand_on(text)


def created(process: int) -> float | None:
    """When the operating system started a process; None when it is gone."""
    try:
        return psutil.Process(process).create_time()
    except psutil.Error:
        return None


def kill_orphans(markers: Mapping[str, tuple[int | None, float | None]], grace: float) -> int:
    """End the processes that a dead runner left, and say how many.

    ``markers`` gives for each node's marker the process group and when its first process was started. A process is
    left over when it carries the marker and is in the group, or is the first process itself.
    """
    left = [process for process in psutil.process_iter() if _is_left_over(process, markers)]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    for process in _alive_after(left, grace):
        with contextlib.suppress(psutil.Error):
            process.kill()
    _alive_after(left, grace)
    return len(left)


def _alive_after(processes: Sequence[psutil.Process], grace: float) -> list[psutil.Process]:
    """Those that still run after ``grace`` seconds, or none as soon as all have ended."""
    until = time.monotonic() + grace
    while alive := [process for process in processes if _runs(process)]:
        if time.monotonic() >= until:
            break
        time.sleep(_POLL)
    return alive


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is_left_over(process: psutil.Process, markers: Mapping[str, tuple[int | None, float | None]]) -> bool:
    try:
        if process.pid == os.getpid():
            return False
        if any(process.pid == first and process.create_time() == started for first, started in markers.values()):
            return True
        group, _ = markers.get(process.environ().get(MARKER, ""), (None, None))
        return group is not None and os.getpgid(process.pid) == group
    except (psutil.Error, OSError):
        return False
