"""Commands of the documentation in a directory that has the repository's files, a small base model and no cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import trainable_model
from doc_blocks import ROOT

CHECKOUT = ("argo", "examples", "presets", "docs")


def prepare(folder: Path) -> dict[str, str]:
    """Link the repository's files into a directory; return an environment for commands there."""
    for name in CHECKOUT:
        (folder / name).symlink_to(ROOT / name)
    home = folder / "home"
    trainable_model.make_model(home / "volumes" / "argotune-models" / "tiny")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ARGO", "KUBE"))}
    return inherited | {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ARGOTUNE_HOME": str(home),
        "ARGOTUNE_MODEL__REPOSITORY": "/mnt/models/tiny",
        "ARGOTUNE_VLLM": "off",
        "ARGOTUNE_COMPUTE_DTYPE": "float32",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


def run_script(page: str, script: str, folder: Path, environment: dict[str, str]) -> None:
    """Run a script that prints ``line NUMBER`` before each part of a page; fail at the line where it fails."""
    file = folder / "page.sh"
    file.write_text(f"set -euo pipefail\n{script}")
    result = subprocess.run(
        ["bash", file.name], cwd=folder, env=environment, capture_output=True, text=True, timeout=1500
    )
    place = re.findall(r"^line (\d+)$", result.stdout, re.MULTILINE)
    assert result.returncode == 0, f"{page}:{place[-1] if place else 0}\n{result.stdout}\n{result.stderr}"
