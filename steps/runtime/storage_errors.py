"""Errors of disks and directories, with their fix: a full, read-only, unreadable or broken disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from steps.runtime.errors import BadInput, StepError
from steps.runtime.pod import is_pod

FULL = (errno.ENOSPC, errno.EDQUOT)
_FIXES = {
    **dict.fromkeys(FULL, "free space there, or use a larger volume"),
    errno.EROFS: "make it writable, or use another directory or volume",
    errno.EACCES: "let this user read and write it, or use another directory or volume",
    errno.EPERM: "let this user read and write it, or use another directory or volume",
    errno.EIO: "check the disk (dmesg), or use another directory or volume",
}
NUMBERS = frozenset(_FIXES)


def is_storage_error(error: BaseException) -> bool:
    """Return True if a disk or a directory caused the error: repeating the call fails again."""
    return isinstance(error, OSError) and _number(error) != 0


def from_exception(error: BaseException) -> StepError | None:
    """Return the error of a step that a disk or a directory made fail; None for other causes.

    Another pod can have another disk, so a broken one is a reason to retry there.
    """
    for cause in _chain(error):
        if number := _number(cause):
            path = getattr(cause, "filename", None) or "the work volume"
            message = f"no space left on {path}" if number in FULL else f"{os.strerror(number).lower()}: {path}"
            kind = StepError if number == errno.EIO and is_pod() else BadInput
            return kind(message, _FIXES[number])
    return None


def _number(error: BaseException) -> int:
    """Return the error number; 0 if the cause is not a disk or a directory."""
    if isinstance(error, OSError):
        # Sockets and other system calls have these numbers too, without a file.
        needs_file = error.errno in (errno.EACCES, errno.EPERM)
        is_storage = error.errno in NUMBERS and (error.filename is not None or not needs_file)
        return (error.errno or 0) if is_storage else 0
    # safetensors and torch put the system's message into errors of their own.
    return next((number for number in (*FULL, errno.EROFS, errno.EIO) if os.strerror(number) in str(error)), 0)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
