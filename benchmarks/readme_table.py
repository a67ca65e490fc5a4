"""Measure, and write the table of measurements into README.md.

    python benchmarks/readme_table.py                      # write the table from benchmarks/results.yaml
    python benchmarks/readme_table.py registry rollout     # measure these rows first
    python benchmarks/readme_table.py --all                # all rows that a script measures: three hours on 2 cores

``results.yaml`` has the day and the machine of each row. Rows without a function here are written by hand. Measure on
an idle machine.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from steps.runtime import machine  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results.yaml"
README = ROOT / "README.md"
MARKS = ("<!-- measurements: written by benchmarks/readme_table.py -->\n", "<!-- end of measurements -->")
INSTRUCTIONS = {"avx512f": "AVX-512", "avx512_bf16": "bfloat16", "amx_bf16": "AMX"}
"""Instructions that explain differences between machines, by the flag of Linux."""
Row = dict[str, Any]


def main() -> None:
    """Measure the rows that are named, store them, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--all", action="store_true", help="measure all rows")
    args = parser.parse_args()
    if unknown := set(args.names) - set(MEASUREMENTS):
        parser.error(f"no script measures {', '.join(sorted(unknown))}; choose from {', '.join(MEASUREMENTS)}")
    rows = yaml.safe_load(RESULTS.read_text())
    for row in rows:
        if row["name"] in MEASUREMENTS and (args.all or row["name"] in args.names):
            row |= {"result": MEASUREMENTS[row["name"]](), "date": datetime.date.today().isoformat()}
            row["machine"] = this_machine()
            print(f"{row['name']}: {row['result']} ({row['machine']})", flush=True)
            RESULTS.write_text(yaml.safe_dump(rows, sort_keys=False, allow_unicode=True, width=120))
    README.write_text(replace_table(README.read_text(), table(rows)))


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table, and the machines below it."""
    machines = list(dict.fromkeys(row["machine"] for row in rows))
    lines = ["| what | result | how to reproduce | day, machine |", "|---|---|---|---|"]
    for row in rows:
        place = f"{row['date']}, {chr(ord('A') + machines.index(row['machine']))}"
        lines.append(f"| {row['what']} | {row['result']} | {row['how']} | {place} |")
    named = [f"{chr(ord('A') + index)}: {name}." for index, name in enumerate(machines)]
    return "\n".join(lines) + "\n\nMachines:\n\n" + "".join(f"- {line}\n" for line in named)


def replace_table(text: str, new: str) -> str:
    """Return a page with another table between its marks."""
    before, rest = text.split(MARKS[0])
    return f"{before}{MARKS[0]}{new}{MARKS[1]}{rest.split(MARKS[1])[1]}"


def this_machine() -> str:
    """Return cores, what they compute with (else the processor's name), memory and GPU of this machine."""
    found = machine.read(ROOT)
    file = Path("/proc/cpuinfo")
    flags = set(file.read_text().split()) if file.exists() else set()
    names = [name for flag, name in INSTRUCTIONS.items() if flag in flags]
    kind = f"with {joined(names)}" if len(names) > 1 else f"of {machine.processor()}"
    return f"{found.cores} CPU cores {kind}, {found.memory_gib:.0f} GiB, {machine.gpu_text(found.gpus)}"


@functools.cache
def demo_run() -> dict[str, Any]:
    """Run the example once; return its status, as ``argotune status -o json`` prints it."""
    with tempfile.TemporaryDirectory() as folder:
        run("examples/quickstart.py", "--runs-dir", folder)
        status = ("-m", "workflows.cli", "status", "@latest", "--runs-dir", folder)
        found: dict[str, Any] = json.loads(run(*status, "-o", "json"))
        run("-m", "workflows.cli", "stop", "--all", "--runs-dir", folder)
    return found


def measure_demo() -> str:
    """Return the time of the example, and of its longest steps."""
    status = demo_run()
    steps = {step["name"]: elapsed(step) for step in status["steps"]}
    named = {"tuning": "tune", "evaluation": "evaluate", "serving": "rollout"}
    parts = ", ".join(f"{name} {steps[step]:.0f} s" for name, step in named.items())
    return f"{duration(elapsed(status))} ({parts})"


def measure_demo_new_clone() -> str:
    """Return the time of ``make demo`` in a new clone, with the installation."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), folder], check=True)
        started = time.monotonic()
        subprocess.run(["make", "demo"], cwd=folder, check=True)
        took = time.monotonic() - started
        subprocess.run([".venv/bin/argotune", "stop"], cwd=folder, check=True)
    return duration(took)


def measure_demo_loss() -> str:
    """Return the losses of base model and adapter on the held-out rows of the example."""
    losses = demo_outputs("evaluate")
    return f"{float(losses['base-loss']):.3f} and {float(losses['adapter-loss']):.3f}"


def measure_demo_answers() -> str:
    """Return how many of the server's answers equal those of the evaluation."""
    return demo_outputs("rollout")["agreement"].partition(";")[0]


def demo_outputs(step: str) -> dict[str, str]:
    """Return the outputs of a step of the example."""
    [found] = [each["outputs"] for each in demo_run()["steps"] if each["name"] == step]
    return dict(found)


def measure_killed_run() -> str:
    """Return what the test of a killed run ensures, if it passes."""
    run("-m", "pytest", "-q", "tests/test_killed_run.py")
    return "identical adapter digest; loss curve within 1e-3"


def measure_test() -> str:
    """Return time and number of tests of ``make test``."""
    print("$ make test", flush=True)
    output = subprocess.run(["make", "test"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    passed, took = find(r"(\d+) passed.* in ([\d.]+)s", output)
    return f"{float(took) / 60:.0f} min ({int(passed):,} tests)"


def measure_data() -> str:
    """Return the time of the download step, relative to ``datasets``, for three formats."""
    found = {}
    for suffix in ("jsonl", "csv", "parquet"):
        output = run("benchmarks/data/measure.py", "--gigabytes", "4", "--format", suffix)
        found[suffix] = (markdown_row(output, "argotune download"), markdown_row(output, "`datasets` alone"))
    ratios = [number(ours[2]) / number(theirs[2]) for ours, theirs in found.values()]
    memory = [max(number(pair[which][4]) for pair in found.values()) for which in (0, 1)]
    return (
        f"{joined(f'{ratio:.2f}' for ratio in ratios)} times the time of `datasets` alone "
        f"({joined(ours[2] for ours, _ in found.values())} s); at most {memory[0]:.0f} MB of memory, "
        f"`datasets` {memory[1]:.0f} MB"
    )


def measure_large_data() -> str:
    """Return time and memory of the download step with 10 GB."""
    row = markdown_row(
        run("benchmarks/data/measure.py", "--gigabytes", "10", "--without-datasets"), "argotune download"
    )
    return f"{row[2]} s, {row[4]} MB of memory"


def measure_registry() -> str:
    """Return the time of a push relative to skopeo."""
    output = run("benchmarks/registry/push.py")
    ours, theirs, ratio, memory = find(r"median +([\d.]+) +([\d.]+) +([\d.]+) +(\d+)", output)
    return f"{ratio} times the time of `skopeo copy` ({ours} s and {theirs} s, medians), {memory} MB of memory"


def measure_rollout() -> str:
    """Return failures and latencies of requests while adapters change."""
    output = run("benchmarks/rollout/measure.py")
    every, inside = markdown_row(output, "all"), markdown_row(output, "while a rollout ran")
    middle, high = (number(inside[column]) / number(every[column]) for column in (3, 4))
    return (
        f"{every[1]} requests, {every[2]} failed; p50 {every[3]} ms, p99 {every[4]} ms; "
        f"while an adapter changes p50 is {middle:.1f} and p99 {high:.1f} times as long"
    )


def measure_tuning() -> str:
    """Return the speed of the tune step, relative to that of each other tool."""
    with tempfile.TemporaryDirectory() as folder:  # earlier results would be taken instead
        results = f"{folder}/tuning.jsonl"
        output = run("benchmarks/tuning/compare.py", "--sets", "conversations", "--output", results)
    found = re.findall(r"^\| (.+) \| \d+ \| (.+) \| (.+) \| [\d.]+ \|$", output, re.M)
    speeds = {name: speed for name, speed, _ in found}
    others = [f"{ratio} {name}" for name, _, ratio in found if not name.startswith("argotune") and "same" not in name]
    [slower] = find(r"same settings: (.+) time per token", output)
    return f"{speeds['argotune']} tokens/s, {joined(others)}; with trl's settings {slower} time"


def measure_kills() -> str:
    """Return the difference that kills of the tune step make."""
    output = run("benchmarks/tuning/kills.py")
    [curves], [weights] = (
        find(r"differ by at most (\S+)\nweights", output),
        find(r"weights differ by at most (\S+)", output),
    )
    return f"{float(curves)} and {float(weights)}"


def measure_memory() -> str:
    """Return the errors of memory estimates at the peak."""
    errors = [float(error) for error in re.findall(r"\| ([+-][\d.]+)% \|$", run("benchmarks/memory/measure.py"), re.M)]
    return f"{min(errors):+.1f}% to {max(errors):+.1f}% ({len(errors)} settings, CPU)"


def measure_validate() -> str:
    """Return the fastest of five starts of ``argotune validate``, relative to a Python that does nothing."""
    examples = sorted(str(path) for path in (ROOT / "examples").glob("*.yaml"))
    validate = min(seconds(["-m", "workflows.cli", "validate", *examples]) for _ in range(5))
    nothing = min(seconds(["-c", "pass"]) for _ in range(5))
    return f"{validate:.2f} s for {len(examples)} files ({validate / nothing:.0f} times `python -c pass`)"


def measure_compile() -> str:
    """Return the time of ``argotune compile`` relative to Hera alone."""
    output = run("benchmarks/compile/measure.py")
    [ours], [ratio] = find(r"argotune compile +([\d.]+) s", output), find(r"ratio +([\d.]+)", output)
    [each] = find(r"each, with start-up +([\d.]+) ms", output)
    return f"{ratio} times the time of Hera alone ({ours} s); 1,000 Workspaces in one call {each} ms each"


def measure_startup() -> str:
    """Return the processor time of the tune step before its first work."""
    row = markdown_row(run("benchmarks/startup/measure.py"), "tune")
    ratio = float(row[2]) / float(row[3])
    return f"{row[2]} s of processor time, {ratio:.2f} times that of importing trl, peft and transformers alone"


MEASUREMENTS: dict[str, Callable[[], str]] = {
    "demo": measure_demo,
    "demo-new-clone": measure_demo_new_clone,
    "demo-loss": measure_demo_loss,
    "demo-answers": measure_demo_answers,
    "validate": measure_validate,
    "compile": measure_compile,
    "startup": measure_startup,
    "registry": measure_registry,
    "rollout": measure_rollout,
    "tuning": measure_tuning,
    "killed-run": measure_killed_run,
    "test": measure_test,
    "kills": measure_kills,
    "memory": measure_memory,
    "data": measure_data,
    "large-data": measure_large_data,
}


def run(*command: str) -> str:
    """Run a script of this folder; return its output, which also appears here."""
    print("$ python " + " ".join(command), flush=True)
    output = subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(output, flush=True)
    return output


def elapsed(entry: Mapping[str, Any]) -> float:
    """Return the seconds of a run or step in a status."""
    started, finished = (datetime.datetime.fromisoformat(entry[name]) for name in ("startedAt", "finishedAt"))
    return (finished - started).total_seconds()


def duration(total: float) -> str:
    """Return minutes and seconds."""
    minutes, rest = divmod(round(total), 60)
    return f"{minutes} min {rest} s"


def seconds(arguments: Sequence[str]) -> float:
    """Return the seconds of a Python process."""
    started = time.monotonic()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
    return time.monotonic() - started


def markdown_row(output: str, first: str) -> list[str]:
    """Return the cells of the row of a Markdown table that begins with a text."""
    [line] = [line for line in output.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def find(pattern: str, output: str) -> tuple[str, ...]:
    """Return the groups of a pattern."""
    found = re.search(pattern, output)
    if not found:
        sys.exit(f"the output has no {pattern!r}")
    return found.groups()


def number(text: str) -> float:
    """Return a number with commas or a unit."""
    return float(re.sub(r"[^\d.]", "", text))


def joined(texts: Any) -> str:
    """Return ``a, b and c``."""
    *first, last = texts
    return f"{', '.join(first)} and {last}"


if __name__ == "__main__":
    main()
