"""Measure how many documents are linted per CPU second, compared with parsing YAML and ``argo lint --offline``.

    python benchmarks/lint/measure.py [--rounds 7] [DIRECTORY]

The programs alternate in every round, so that load on the machine affects all of them; the ratios are those of the
medians. ``argo`` is searched on the PATH and in ``$CLUSTER_DIR/bin``; without it, its column is omitted.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "lint_differential")]

from argo_program import find_argo  # noqa: E402

from workflows.lint import lint  # noqa: E402

Files = list[tuple[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT / "argo", help="default: argo/")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    files = [(str(path), path.read_text()) for path in sorted(args.directory.rglob("*.yaml"))]
    measures: dict[str, Callable[[Files], float]] = {"argotune lint": lint_all, "YAML in C": parse_all}
    if find_argo():
        measures["argo lint"] = lint_with_argo
    for measure in measures.values():
        measure(files)
    rates: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(args.rounds):
        for name, measure in measures.items():
            rates[name].append(len(files) / measure(files))
    ours = statistics.median(rates["argotune lint"])
    print(f"{len(files)} files, {sum(len(text) for _, text in files) / 1e6:.2f} MB, {args.rounds} rounds")
    for name, values in rates.items():
        rate = statistics.median(values)
        print(f"{name:14} {rate:8,.0f} files per CPU second  ({ours / rate:.2f} of it: argotune lint)")


def lint_all(files: Files) -> float:
    """Return the CPU seconds of linting each file alone."""
    started = time.process_time()
    for file in files:
        lint([file])
    return time.process_time() - started


def parse_all(files: Files) -> float:
    """Return the CPU seconds of parsing the YAML only."""
    started = time.process_time()
    for _, text in files:
        try:
            list(yaml.load_all(text, Loader=yaml.CSafeLoader))
        except yaml.YAMLError:
            continue
    return time.process_time() - started


def lint_with_argo(files: Files) -> float:
    """Return the CPU seconds of ``argo lint --offline`` with all files in one process."""
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for index, (_, text) in enumerate(files):
            names.append(f"d{index}.yaml")
            Path(folder, names[-1]).write_text(text)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [find_argo() or "argo", "lint", "--offline", *names]
        subprocess.run(command, cwd=folder, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
