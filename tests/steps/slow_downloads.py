"""Downloads through a slow proxy that are killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from object_stores import SlowProxy

FETCH = """
import sys, pathlib
from steps.data.fetch import fetch_all
fetch_all([sys.argv[1]], pathlib.Path(sys.argv[2]), allow_private_hosts=True)
"""


def kill_mid_transfer(proxy: SlowProxy, url: str, folder: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", FETCH, url, folder], start_new_session=True)
    try:
        assert proxy.exhausted.wait(300), "the download ended"
        wait_for_bytes(folder)
        process.send_signal(signal.SIGKILL)
        process.wait()
        # The reader notices the end of its parent, although it waits for bytes.
        wait_for_group(process.pid)
    finally:
        process.kill()


def wait_for_bytes(folder: Path) -> None:
    """Wait until a part of a file is on disk: the proxy is ahead of the reader."""
    for _ in range(6000):
        if any(partial.stat().st_size for partial in folder.glob("*.partial")):
            return
        time.sleep(0.05)
    raise AssertionError("nothing was written")


def wait_for_group(group: int) -> None:
    for _ in range(6000):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("the reader outlives the step")
