"""Results of the comparison: a file of JSON lines that grows run by run, and the tables made from it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Result = dict[str, Any]
OURS = "argotune"
SAME_SETTINGS = ("plain trl same settings", "argotune same settings")


def read(file: Path, conditions: Mapping[str, str], rows: Mapping[str, int]) -> list[Result]:
    """Return the results in a file; a line that an interruption cut short is removed.

    Args:
        file: The results of earlier calls; it may not exist.
        conditions: What all results must have been measured with: the machine and argotune's code.
        rows: Number of rows of each set.

    Raises:
        SystemExit: The file has results under other conditions, or of other rows: their ratios would mean nothing.
    """
    text = file.read_text() if file.exists() else ""
    complete = text[: text.rfind("\n") + 1]
    if complete != text:
        file.write_text(complete)
    found = [json.loads(line) for line in complete.splitlines()]
    for number, result in enumerate(found, start=1):
        expected = {**conditions, "rows": rows.get(result["set"], result["rows"])}
        for key, value in expected.items():
            if result[key] != value:
                raise SystemExit(
                    f"error: {file}:{number}: {key} is {result[key]!r}, this run has {value!r}\n"
                    "fix: delete the file, or pass another --output"
                )
    return found


def append(file: Path, result: Result) -> None:
    """Add a result; an interruption loses at most the run in progress."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(json.dumps(result) + "\n")


def missing(
    results: Sequence[Result], sets: Sequence[str], rounds: int, contenders: Sequence[str]
) -> list[tuple[str, int, str]]:
    """Return the runs without a result, as set, round and contender: in each round each contender runs once.

    Runs that failed are among them.
    """
    done = {(result["set"], result["round"], result["contender"]) for result in results if "speed" in result}
    due = [(name, number, contender) for name in sets for number in range(1, rounds + 1) for contender in contenders]
    return [run for run in due if run not in done]


def tables(results: Sequence[Result], sets: Sequence[str], contenders: Sequence[str]) -> str:
    """Return a Markdown table for each set, with what does not run below it."""
    return "\n".join(_table(results, name, contenders) for name in sets)


def _table(results: Sequence[Result], row_set: str, contenders: Sequence[str]) -> str:
    found = [result for result in results if result["set"] == row_set and "speed" in result]
    lines = [
        f"## {row_set}\n",
        f"| | rounds | useful tokens/s: median (minimum to maximum) | {OURS} relative to it | peak memory, GiB |",
        "|---" * 5 + "|",
    ]
    failed = []
    for contender in contenders:
        runs = [result for result in found if result["contender"] == contender]
        if runs:
            speeds = spread([run["speed"] for run in runs])
            peak = max(run["peak_gib"] for run in runs)
            ratio = spread(ratios(found, OURS, contender), "x")
            lines.append(f"| {contender} | {len(runs)} | {speeds} | {ratio} | {peak:.1f} |")
        elif errors := _errors(results, row_set, contender):
            failed.append(f"{contender} does not run: {errors[-1]}")
    same = ratios(found, *SAME_SETTINGS)
    if same and set(SAME_SETTINGS) <= set(contenders):
        failed.append(f"{SAME_SETTINGS[1]}: {_percent(same)} time per token than {SAME_SETTINGS[0]},")
        failed.append(f"largest difference of the loss curves {_loss_gap(found):.1e}")
    return "\n".join([*lines, "", *failed, ""])


def versions(results: Sequence[Result]) -> str:
    """Return the versions of each contender's packages."""
    found = {result["contender"]: result["versions"] for result in results if "versions" in result}
    lines = [f"- {name}: " + ", ".join(map(" ".join, packages.items())) for name, packages in found.items()]
    return "Versions:\n\n" + "\n".join(lines) + "\n"


def ratios(results: Sequence[Result], first: str, second: str) -> list[float]:
    """Return the speed of a contender relative to another's, for each round that both have."""
    speeds: dict[str, dict[int, float]] = {first: {}, second: {}}
    for result in results:
        if result["contender"] in speeds:
            speeds[result["contender"]][result["round"]] = result["speed"]
    return [speeds[first][number] / speeds[second][number] for number in speeds[first] if number in speeds[second]]


def spread(values: Sequence[float], unit: str = "") -> str:
    """Return ``median (minimum to maximum)``."""
    if not values:
        return "-"
    digits = 2 if unit else 1
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle}{unit} ({low} to {high})"


def _percent(values: Sequence[float]) -> str:
    low, middle, high = (f"{value - 1:+.1%}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def _loss_gap(results: Sequence[Result]) -> float:
    curves = [next(one["losses"] for one in results if one["contender"] == name) for name in SAME_SETTINGS]
    return max(abs(a - b) for a, b in zip(*curves, strict=True))


def _errors(results: Sequence[Result], row_set: str, contender: str) -> list[str]:
    return [
        one["error"] for one in results if (one["set"], one["contender"]) == (row_set, contender) if "error" in one
    ]
