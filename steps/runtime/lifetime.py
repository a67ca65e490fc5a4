"""Child processes that end with their parent, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> Callable[[], None] | None:
    """For ``subprocess.Popen(preexec_fn=...)``: the kernel kills the child when ``parent`` dies, even of SIGKILL.

    Linux alone has this (prctl(2), PR_SET_PDEATHSIG); None elsewhere.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def ask_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(143)

    return ask_kernel
