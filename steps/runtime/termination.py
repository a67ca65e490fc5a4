"""The termination message of a container: why a step failed, for kubectl, Argo and the CLI.

The kubelet mounts the file, writable for every user, and copies up to 4096 bytes to the container's status
(Kubernetes: "Determine the Reason for Pod Failure"). Argo appends them to the node's message,
as the local runner does.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress

from steps.runtime.redaction import redact
from steps.runtime.references import without_references

FILE_VARIABLE = "ARGOTUNE_TERMINATION_LOG"
DEFAULT_FILE = "/dev/termination-log"
MAX_BYTES = 4096
MAX_FIX_BYTES = 1024
_FIX = "fix: "
_ARGO_PREFIX = re.compile(r"(?:main: )?Error \(exit code -?\d+\): ")


def write(message: str, fix: str = "") -> None:
    """Write the reason of a failure; does nothing outside a pod, where the file does not exist."""
    # A failure that cannot be written must not hide the failure itself.
    with suppress(OSError):
        # Without O_CREAT: outside a pod, root would create the file in /dev.
        file = os.open(os.environ.get(FILE_VARIABLE) or DEFAULT_FILE, os.O_WRONLY | os.O_TRUNC)
        with open(file, "wb") as opened:
            opened.write(format_text(message, fix).encode())


def format_text(message: str, fix: str = "") -> str:
    """Return the message on one line, redacted, and the fix on a second one; at most ``MAX_BYTES``."""
    last = f"\n{_FIX}{_single_line(fix, MAX_FIX_BYTES)}" if fix else ""
    return _single_line(message, MAX_BYTES - len(last.encode())) + last


def parse(text: str) -> tuple[str, str]:
    """Return message and fix of a termination message, also if Argo has put the exit code before it."""
    prefix = _ARGO_PREFIX.match(text)
    message, _, fix = text[prefix.end() if prefix else 0 :].partition(f"\n{_FIX}")
    return message.strip(), fix.strip()


def _single_line(text: str, max_bytes: int) -> str:
    line = without_references(" ".join(str(redact(text)).split())).encode(errors="replace")
    if len(line) <= max_bytes:
        return line.decode()
    return line[: max_bytes - 3].decode(errors="ignore") + "..."
