"""Install the contenders that need other versions than argotune into venvs of their own, in .benchmark-venvs.

    python benchmarks/tuning/install.py [NAME ...]    # litgpt, torchtune, unsloth: those of requirements/

Each venv has its own torch (about 5 GB). A venv must not link to files of another: pip would write through the links.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
VENVS = Path(__file__).parents[2] / ".benchmark-venvs"


def main() -> None:
    """Create the venvs that are named, or all; existing ones are replaced."""
    names = sys.argv[1:] or [file.stem for file in sorted(REQUIREMENTS.glob("*.txt"))]
    if unknown := [name for name in names if not (REQUIREMENTS / f"{name}.txt").exists()]:
        sys.exit(f"error: no requirements of {', '.join(unknown)}\nfix: add benchmarks/tuning/requirements/NAME.txt")
    for name in names:
        venv.create(VENVS / name, clear=True, with_pip=True)
        pip = [str(VENVS / name / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--requirement", str(REQUIREMENTS / f"{name}.txt")], check=True)


if __name__ == "__main__":
    main()
