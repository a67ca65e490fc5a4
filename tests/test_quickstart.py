"""The demo's data server."""

import importlib.util
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
import requests

SCRIPT = Path(__file__).parents[1] / "examples" / "quickstart.py"


@pytest.fixture
def quickstart() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quickstart", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_port_in_use_is_replaced(quickstart: ModuleType, monkeypatch: pytest.MonkeyPatch):
    bodies: list[bytes] = []

    def run(arguments: list[str]) -> int:
        command, workspace, flag, parameter, *others = arguments
        assert (command, workspace, flag, others) == ("run", str(quickstart.WORKSPACE), "-p", ["--name", "x"])
        name, _, url = parameter.partition("=")
        assert (name, url.partition("#")[2][:7]) == ("data-urls", "sha256=")
        bodies.append(requests.get(url, timeout=10).content)
        return 0

    monkeypatch.setattr(quickstart, "main", run)
    monkeypatch.setattr(sys, "argv", ["quickstart.py", "--name", "x"])
    with socket.socket() as other:
        with suppress(OSError):  # another demo uses the port
            other.bind(("127.0.0.1", quickstart.PORT))
            other.listen()
        assert quickstart.quickstart() == 0
    assert bodies == [(SCRIPT.parent / "data" / "oncall.parquet").read_bytes()]
