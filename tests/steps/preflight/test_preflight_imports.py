"""Checks of preflight import their modules before threads start: simultaneous imports can fail with _DeadlockError."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

PROGRAM = """
import sys
from pathlib import Path
from steps.preflight import step
from steps.preflight.settings import Settings

late = []
class Recorder:
    def find_spec(self, name, path=None, target=None):
        late.append(name)

def check(settings):
    if not any(isinstance(finder, Recorder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Recorder())
    import urllib3.exceptions, requests, kubernetes.client, kubernetes.config
    from steps.oci.registry_client import RegistryClient
    from steps.preflight import cluster_checks, data_checks, model_checks, tracking_checks
    yield "imported"

step.CHECKS = (check,) * 7
result = step.preflight(Settings(work=Path(sys.argv[1]), preset="", model=""))
assert len(result.checked) == 7, result
assert not late, late
"""


def start_checks(work: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, work], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_modules_of_the_checks_are_imported_first(tmp_path):
    start_checks(str(tmp_path))


@pytest.mark.parametrize("starts", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_starts_without_import_race(starts, tmp_path):
    """In fresh interpreters, several at a time, so that the machine is loaded."""
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(start_checks, [str(tmp_path / str(number)) for number in range(starts)]):
            pass
