"""Measure the processor time that each step needs before its first useful work: Python and imports.

    python benchmarks/startup/measure.py            # all steps, as a table
    python benchmarks/startup/measure.py tune       # the slowest imports of one step

Heavy libraries are imported inside functions, so a step's module alone is not what a pod waits for. ``HEAVY`` has the
modules that a step imports before it reads data or a model; the last column is a Python that imports only these. The
table has processor time, since other programs change the time of a clock; the minimum of several runs counts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROUNDS, SLOWEST = 3, 25
STEPS = sorted(file.parent.name for file in ROOT.glob("steps/*/__main__.py"))
PREPARED = "from steps.models.model import prepare_libraries as p; p()"
TOKENIZER = f"{PREPARED}; from transformers import AutoTokenizer"
HEAVY = {
    "tune": f"{PREPARED}; from trl import SFTTrainer, SFTConfig; from peft import LoraConfig; "
    "from transformers import AutoModelForCausalLM",
    "evaluate": f"{PREPARED}; from peft import PeftModel; from transformers import AutoModelForCausalLM",
    "dryrun": f"{PREPARED}; from trl import SFTTrainer, SFTConfig; from peft import LoraConfig",
    "tune_bench": f"{TOKENIZER}; from trl import SFTConfig; from peft import LoraConfig",
    "preview": TOKENIZER,
    "download": "import pyarrow.parquet",
}


def main() -> None:
    """Print the slowest imports of a step, or a table of all."""
    if len(sys.argv) > 1:
        _print_imports(sys.argv[1])
        return
    print("| step | start, s of processor time | with its libraries, s | its libraries alone, s |\n|---|---|---|---|")
    for step in STEPS:
        sources = _module(step), _source(step), _libraries(step)
        rounds = [[_seconds(source) for source in sources] for _ in range(ROUNDS)]
        times = " | ".join(f"{min(each):.2f}" for each in zip(*rounds, strict=True))
        print(f"| {step} | {times} |", flush=True)


def _module(step: str) -> str:
    return f"import steps.{step}.settings, steps.{step}.step, steps.runtime.entrypoint"


def _source(step: str) -> str:
    return f"{_module(step)}; {HEAVY.get(step, '')}"


def _libraries(step: str) -> str:
    return HEAVY.get(step, "").replace(f"{PREPARED}; ", "")


def _seconds(source: str) -> float:
    """Return user and system time of a Python that executes ``source``."""
    before = os.times()
    subprocess.run([sys.executable, "-c", source], cwd=ROOT, check=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def _print_imports(step: str) -> None:
    command = [sys.executable, "-X", "importtime", "-c", _source(step)]
    stderr = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stderr
    rows = re.findall(r"^import time: +(\d+) \| +(\d+) \| +(\S+)$", stderr, re.MULTILINE)
    print("| module | alone, ms | with its imports, ms |\n|---|---|---|")
    for alone, total, name in sorted(rows, key=lambda row: -int(row[1]))[:SLOWEST]:
        print(f"| {name} | {int(alone) / 1000:.0f} | {int(total) / 1000:.0f} |")


if __name__ == "__main__":
    main()
