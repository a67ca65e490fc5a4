"""Compare the tuning speed of argotune with other tools: same machine, model, rows and seed.

    python benchmarks/tuning/install.py                   # venvs of the contenders that need one
    python benchmarks/tuning/compare.py --rounds 5        # all contenders on all sets
    python benchmarks/tuning/compare.py --rounds 5 --sets conversations --only KAITO-like,argotune

Each training runs in a process of its own; in each round each contender runs once. Useful tokens exclude padding. Time
is that of the training loop. Every run adds a line to --output, from which the tables are made; the same command after
an interruption continues.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import results  # noqa: E402
import rows  # noqa: E402

PRESET, SEED = "smollm2-135m-instruct", 42
VENVS = ROOT / ".benchmark-venvs"
SCRIPTS = Path(__file__).parent / "contenders"
# As the tune step: busy waiting makes a shared machine several times slower, and an idle one no faster.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}


@dataclass(frozen=True)
class Contender:
    """A script of contenders/, with its settings."""

    script: str
    venv: str = ""
    """Directory of .benchmark-venvs; empty: this interpreter."""
    options: dict[str, Any] = field(default_factory=dict)


CONTENDERS = {
    "KAITO-like": Contender("kaito_like"),
    "plain trl": Contender("plain_trl"),
    "plain trl same settings": Contender("plain_trl", options={"same_process": True}),
    "unsloth LoRA": Contender("unsloth_lora", "unsloth", {"batch_size": 1}),
    "torchtune LoRA": Contender("torchtune_lora", "torchtune", {"batch_size": 1}),
    "LitGPT LoRA": Contender("litgpt_lora", "litgpt", {"batch_size": 1}),
    "unsloth LoRA batch 4": Contender("unsloth_lora", "unsloth", {"batch_size": 4}),
    "LitGPT LoRA batch 4": Contender("litgpt_lora", "litgpt", {"batch_size": 4}),
    "argotune LoRA": Contender("argotune_step", options={"method": "lora"}),
    "argotune same settings": Contender(
        "argotune_step", options={"training_arguments": {"train_sampling_strategy": "random"}}
    ),
    "argotune batch 2 x 4": Contender(
        "argotune_step", options={"batch_size": 2, "training_arguments": {"gradient_accumulation_steps": 4}}
    ),
    "argotune": Contender("argotune_step"),
}


def main() -> None:
    """Run what has no result yet, and print the tables."""
    args = _parse()
    conditions, sets = _conditions(), {name: choose_rows(name, args.rows) for name in args.sets}
    found = results.read(args.output, conditions, {name: row_set.rows for name, row_set in sets.items()})
    broken: set[tuple[str, str]] = set()
    for name, number, contender in results.missing(found, args.sets, args.rounds, args.only):
        if (name, contender) in broken:
            continue
        result = {"set": name, "round": number, "contender": contender, "rows": sets[name].rows}
        result |= conditions | run(CONTENDERS[contender], sets[name])
        results.append(args.output, result)
        found.append(result)
        if "error" in result:
            broken.add((name, contender))
        outcome = f"{result['speed']:.1f} useful tokens/s" if "speed" in result else result["error"]
        print(f"{name}, round {number}: {contender}: {outcome}", file=sys.stderr, flush=True)
    print(f"{conditions['machine']}\n\n{results.tables(found, args.sets, args.only)}\n{results.versions(found)}")


def run(contender: Contender, row_set: rows.RowSet) -> dict[str, Any]:
    """Return the result of a training, or its error."""
    python = VENVS / contender.venv / "bin" / "python" if contender.venv else Path(sys.executable)
    if not python.exists():
        return {"error": f"not installed: run benchmarks/tuning/install.py {contender.venv}"}
    with tempfile.TemporaryDirectory() as folder:
        work, model = Path(folder), _model_folder()
        rows.write_rows(work, row_set, SEED)
        rows.write_tokens(work, model)
        job = {
            "work": folder,
            "model": str(model),
            "preset": PRESET,
            "bfloat16": _has_bfloat16(),
            "length": rows.LENGTH,
            "seed": SEED,
            "options": contender.options,
        }
        command = [str(python), str(SCRIPTS / f"{contender.script}.py"), json.dumps(job)]
        process = subprocess.run(command, cwd=ROOT, env=os.environ | ENVIRONMENT, capture_output=True, text=True)
    if process.returncode:
        return {"error": _last_line(process.stderr) or f"exit code {process.returncode}"}
    return dict(json.loads(_last_line(process.stdout)))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default: 5)")
    parser.add_argument("--sets", type=_names(rows.SETS), default=list(rows.SETS), help=f"of {', '.join(rows.SETS)}")
    parser.add_argument(
        "--only", type=_names(CONTENDERS), default=list(CONTENDERS), help=f"of {', '.join(CONTENDERS)}"
    )
    parser.add_argument("--rows", type=int, default=0, help="rows of each set (default: as many as the set has)")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "tuning.jsonl", help="file of the results")
    return parser.parse_args()


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        found = [name.strip() for name in text.split(",")]
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; choose from {', '.join(known)}")
        return found

    return names


def choose_rows(name: str, count: int) -> rows.RowSet:
    """Return a set with another number of rows; 0: as many as the set has."""
    return dataclasses.replace(rows.SETS[name], rows=count or rows.SETS[name].rows)


@functools.cache
def _model_folder() -> Path:
    from steps.models.model import fetch_model

    return fetch_model(PRESET).folder


@functools.cache
def _has_bfloat16() -> bool:
    from steps.models.model import compute_dtype

    return compute_dtype("cpu") == "bfloat16"


def _conditions() -> dict[str, str]:
    """Return the machine, and the version of steps/ (a Git tree; changes that are not committed do not count)."""
    from steps.runtime import machine

    found = machine.read(ROOT)
    gpus = machine.gpu_text(found.gpus)
    command = ["git", "rev-parse", "HEAD:steps"]
    return {
        "machine": f"{machine.processor()}, {found.cores} cores, {found.memory_gib:.0f} GiB, {gpus}",
        "code": subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip(),
    }


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


if __name__ == "__main__":
    main()
