"""GPUs of this machine, for tests with the mark ``gpu``."""

from __future__ import annotations

import os

import pytest

REQUIRED = "ARGOTUNE_REQUIRE_GPUS"
"""Environment variable with the number of GPUs without which tests fail instead of being skipped."""
NO_GPU = f"{REQUIRED}=%s, but torch finds %s CUDA devices: run this on a machine with a GPU and a CUDA build of torch"


def count() -> int:
    """Return the number of CUDA devices that torch can use; 0 without torch."""
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def check_session() -> None:
    """End the session if it requires more GPUs than there are."""
    required = int(os.environ.get(REQUIRED) or 0)
    if required and (found := count()) < required:
        pytest.exit(NO_GPU % (required, found), returncode=2)


def check_test(item: pytest.Item) -> None:
    """Skip a test that needs more GPUs than there are: ``@pytest.mark.gpu`` needs one, ``gpu(2)`` two."""
    marker = item.get_closest_marker("gpu")
    if marker is None:
        return
    needed = marker.args[0] if marker.args else 1
    if (found := count()) < needed:
        pytest.skip(f"needs {needed} CUDA devices, found {found}")
