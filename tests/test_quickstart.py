"""The demo's data server."""

import importlib.util
import socket
import sys
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
        bodies.append(requests.get(url, timeout=120).content)
        return 0

    monkeypatch.setattr(quickstart, "main", run)
    monkeypatch.setattr(sys, "argv", ["quickstart.py", "--name", "x"])
    serve = quickstart._serve
    with socket.create_server(("127.0.0.1", 0)) as other:
        # Another port stands for the demo's, which the demo of another test can take or give up meanwhile.
        in_use = other.getsockname()[1]
        monkeypatch.setattr(quickstart, "_serve", lambda port: serve(in_use if port == quickstart.PORT else port))
        assert quickstart.quickstart() == 0
    assert bodies == [(SCRIPT.parent / "data" / "oncall.parquet").read_bytes()]
