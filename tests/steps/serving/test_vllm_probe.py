"""A vLLM whose script and interpreter are in different directories, as ``uv pip install --system`` writes them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from steps.runtime.errors import BadInput
from steps.serving import server_command, vllm_probe

PLATFORM = "class current_platform:\n    device_type = '{device}'\n"


def write_executable(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """A Python with a ``vllm`` package that finds a GPU, in a directory without ``vllm``."""
    packages = tmp_path / "site packages"
    (packages / "vllm").mkdir(parents=True)
    (packages / "vllm" / "__init__.py").write_text("")
    (packages / "vllm" / "platforms.py").write_text(PLATFORM.format(device="cuda"))
    (packages / "vllm-0.32.0.dist-info").mkdir()
    (packages / "vllm-0.32.0.dist-info" / "METADATA").write_text("Name: vllm\nVersion: 0.32.0\n")
    text = f"#!/bin/sh\nPYTHONPATH='{packages}' exec {sys.executable} \"$@\"\n"
    return write_executable(tmp_path / "usr" / "bin" / "python3.12", text)


def script(tmp_path: Path, head: str) -> Path:
    return write_executable(tmp_path / "usr" / "local" / "bin" / "vllm", f"{head}\nimport sys\n")


@pytest.mark.parametrize(
    "head",
    [
        "#!{python}",
        "#! {python} -E",
        "#!/usr/bin/env python3.12",
        "#!/usr/bin/env -S LC_ALL=C python3.12 -E",
        "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''",
        "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''",
        "#!/bin/sh\n'''exec' '{python}' \"$0\" \"$@\"\n' '''",
    ],
)
def test_the_interpreter_is_that_of_the_script(
    head: str, interpreter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{interpreter.parent}{os.pathsep}{os.environ['PATH']}")
    vllm = script(tmp_path, head.format(python=interpreter))
    assert vllm_probe.find_interpreter(vllm) == str(interpreter)
    monkeypatch.setenv("ARGOTUNE_VLLM", str(vllm))
    chosen = server_command.choose_server()
    assert (chosen.kind, chosen.program) == ("vllm", [str(vllm), "serve"])


def test_the_interpreter_of_a_relocatable_environment_is_next_to_the_script(tmp_path: Path) -> None:
    python = write_executable(tmp_path / "bin" / "python", "")
    head = "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python' \"$0\" \"$@\"\n' '''\n"
    assert vllm_probe.find_interpreter(write_executable(tmp_path / "bin" / "vllm", head)) == str(python)


def test_a_script_without_an_interpreter_is_reported(tmp_path: Path) -> None:
    missing = script(tmp_path, "#!/nowhere/python3")
    assert vllm_probe.find_interpreter(missing) == ""
    assert "names no interpreter" in vllm_probe.probe(str(missing)).reason
    for content in (b"", b"\xff\x00\n'''exec'", b"#!", b"#!/usr/bin/env", b"#!'unbalanced"):
        missing.write_bytes(content)
        assert vllm_probe.find_interpreter(missing) == ""


def test_a_failed_start_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    text = '#!/bin/sh\necho "loading libnuma" >&2\necho "ImportError: libnuma.so.1 not found" >&2\nexit 1\n'
    python = write_executable(tmp_path / "usr" / "bin" / "python3", text)
    reason = vllm_probe.probe(str(script(tmp_path, f"#!{python}"))).reason
    assert "loading libnuma / ImportError: libnuma.so.1 not found" in reason


def test_a_pod_never_falls_back_to_transformers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARGOTUNE_VLLM", str(script(tmp_path, "#!/nowhere/python3")))
    with pytest.raises(BadInput, match=r"vLLM cannot serve: .*names no interpreter"):
        server_command.require_server("vllm")
    monkeypatch.setenv("ARGOTUNE_VLLM", "off")
    with pytest.raises(BadInput, match="vLLM cannot serve: ARGOTUNE_VLLM is off"):
        server_command.require_server("vllm")
    assert server_command.require_server("transformers").kind == "transformers"
