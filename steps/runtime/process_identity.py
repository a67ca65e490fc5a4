"""Identity of a process, which stays the same when the system clock is corrected."""

from __future__ import annotations

from pathlib import Path

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ENDED = (b"Z", b"X")
"""States of a process that has ended, also while its parent does not read the exit code."""
_START_TICKS = 19
"""Index of field 22 (starttime) of /proc/PID/stat after the name of the program (proc(5))."""


def process_identity(pid: int) -> str:
    """Return a text that no other process of this machine has; empty when the process has ended.

    psutil adds the start of a process to the boot time, which moves with the system clock: the kernel's own numbers
    do not. Systems without /proc get the creation time in milliseconds.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        if fields[0] in _ENDED:
            return ""
        return f"{_BOOT_ID.read_text().strip()}:{int(fields[_START_TICKS])}"
    except (OSError, IndexError, ValueError):
        pass
    try:
        return str(round(psutil.Process(pid).create_time() * 1000))
    except psutil.Error:
        return ""
