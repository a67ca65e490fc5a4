"""Make ``docs/images/cli.svg`` from the commands of this installation, with rich.

python docs/cli_screenshot.py
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
EXAMPLE = "examples/smollm2_135m_qlora_parquet.yaml"
WIDTH = 114
PLAN_SECTION = "TUNING, GiB OF A GPU"


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "images" / "cli.svg")
    args = parser.parse_args()
    args.output.write_text(make_picture())
    print(f"wrote {args.output} ({args.output.stat().st_size / 1000:.0f} kB)")


def make_picture() -> str:
    """Return an SVG of three commands: the check of a Workspace, the estimate, and the view of a run."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    _print_command(console, f"argotune validate {EXAMPLE}", run("validate", EXAMPLE))
    plan = run("plan", EXAMPLE)
    _print_command(console, f"argotune plan {EXAMPLE}", plan[plan.index(PLAN_SECTION) :])
    console.print(Text("$ ", style="green"), f"argotune run {EXAMPLE}", sep="", highlight=False)
    console.print(view_of_a_run())
    # The font of the reader: rich's own would be loaded from another host.
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="argotune"), flags=re.DOTALL)


def run(*arguments: str) -> str:
    """Return the output of a command."""
    command = [sys.executable, "-m", "workflows.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout


def view_of_a_run() -> object:
    """Return the table that `argotune run` draws, in the middle of a training."""
    from workflows.runs.progress_rate import ProgressRate
    from workflows.runs.step import Step
    from workflows.runs.table import now
    from workflows.runs.view import LiveView

    view, moment = LiveView(Console(file=io.StringIO(), width=WIDTH)), now()
    done = {"preflight": 1, "provision": 1, "download": 2}
    for name, seconds in done.items():
        started = moment - timedelta(seconds=seconds)
        view.on_step_change(Step(name, phase="Succeeded", started=started, finished=moment))
    tune = Step("tune", phase="Running", started=moment - timedelta(seconds=70))
    view.on_step_change(tune)
    view.on_log(tune, "step 28/72 loss 1.913 lr 1.1e-03 203 tok/s eta 40s")
    clock = iter([0.0, 60.0])
    view._progress["tune"] = ProgressRate(lambda: next(clock))
    for count in (2, 28):
        view.on_progress(tune, count, 72)
    for name in ("evaluate", "package", "rollout"):
        view.on_step_change(Step(name))
    return view.table()


def _print_command(console: Console, command: str, output: str) -> None:
    console.print(Text("$ ", style="green"), command, sep="", highlight=False)
    console.print(Text.from_ansi(output.rstrip()))
    console.print()


if __name__ == "__main__":
    main()
