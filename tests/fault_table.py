"""The tables of docs/FAULTS.md: the outcome of a step for each failing call, written by the fault injection tests.

Each section belongs to one test, which provides all its rows, so tests can run in any order and in several processes.
``ARGOTUNE_REGENERATE=1`` writes the sections instead of comparing them. If all combinations would take minutes, a test
injects a rotating sample of faults into each call; ``ARGOTUNE_EVERY_FAULT=1`` (and writing) injects every fault.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from faults import KINDS, Faults

PAGE = Path(__file__).parents[1] / "docs" / "FAULTS.md"
TOP = """\
# Fault injection results

Tests generate this page. For each step, each of its calls fails once with each fault; the step runs (again, if it was
killed), and the test verifies the final state of the server: nothing is created twice, lost or left behind.

| fault | behavior of the server |
|---|---|
| reset | resets the connection and does not perform the call |
| timeout | performs the call and sends no response |
| 429 | rejects the call with `Retry-After` |
| 500 | rejects the call |
| truncated | performs the call and sends half of the response |
| killed | performs the call; the step's process gets SIGKILL before the response, and is restarted |

The sections "Guarantees" list other attacks and faults, with the tests that fail without the guarantee.
"""
HEAD = ("step", "call", "fault", "outcome")


GUARANTEE_HEAD = ("attack or fault", "outcome", "tests")


class Row(NamedTuple):
    step: str
    call: str
    fault: str
    outcome: str


class Guarantee(NamedTuple):
    fault: str
    outcome: str
    tests: str
    """Files and names of the tests that fail without it."""


def sweep(
    step: str,
    run: Callable[[str, int], tuple[Faults, str]],
    kinds: Sequence[str] = KINDS,
    *,
    max_repeats: int = 1000,
    sample: int = 0,
) -> list[Row]:
    """Return the rows of a step for every call and fault; at most ``max_repeats`` rows for a repeated call.

    Args:
        run: ``run(kind, call)`` runs the step against a new server whose ``call``-th call fails with ``kind``
            ("": none), verifies the final state, and returns the server's faults and the outcome.
        sample: number of faults to inject into each call, rotating from call to call; 0: all.
    """
    calls = list(run("", 0)[0].calls)
    assert calls, f"{step} made no call"
    rows, turn = [], 0
    for number, call in enumerate(calls, 1):
        if calls[:number].count(call) > max_repeats:
            continue  # polling
        for kind in select_faults(kinds, sample, turn):
            faults, outcome = run(kind, number)
            assert faults.happened, f"{step}: call {number} ({call}) was not repeated, so {kind} was not injected"
            assert faults.failed == call, f"{step}: call {number} was {faults.failed} this time, not {call}"
            rows.append(Row(step, call, kind, outcome))
        turn += 1
    return rows


def by_name(run: Callable[[str, int, str], tuple[Faults, str]]) -> Callable[[str, int], tuple[Faults, str]]:
    """Adapt ``run(kind, call, name)``, where ``call`` counts only calls of that name, to ``sweep``.

    A call that is repeated because of a slow machine then does not shift the numbers of the others.
    """
    seen: list[str] = []

    def attempt(kind: str, call: int) -> tuple[Faults, str]:
        name = seen[call - 1] if kind else ""
        faults, outcome = run(kind, seen[:call].count(name), name)
        seen[:] = seen or faults.calls
        return faults, outcome

    return attempt


def sweep_names(
    step: str, run: Callable[[str, str], tuple[Faults, str]], kinds: Sequence[str] = KINDS, *, sample: int = 0
) -> list[Row]:
    """Like ``sweep``, for steps whose number or order of calls varies: the first call of each name fails.

    ``run(kind, name)`` is like that of ``sweep``.
    """
    names = list(dict.fromkeys(run("", "")[0].calls))
    assert names, f"{step} made no call"
    rows = []
    for turn, name in enumerate(sorted(names)):
        for kind in select_faults(kinds, sample, turn):
            faults, outcome = run(kind, name)
            assert faults.happened, f"{step}: {name} was not repeated, so {kind} was not injected"
            rows.append(Row(step, name, kind, outcome))
    return rows


def check(section: str, rows: Sequence[Row], *, sample: bool = False) -> None:
    """Compare a section of docs/FAULTS.md with the results, or write it.

    With ``sample``, the rows must be a subset of the section that covers every call.
    """
    assert rows, f"no rows for {section}"
    text = _render(section, HEAD, _merge(rows))
    if _is_regenerating():
        _write(section, text)
    documented = _sections(PAGE.read_text()).get(section, "nothing")
    if sample and not _injects_all():
        known = _rows(documented)
        missing = [row for row in rows if row not in known]
        same_calls = {row[:2] for row in rows} == {row[:2] for row in known}
        assert not missing and same_calls, (
            f"docs/FAULTS.md differs; ARGOTUNE_REGENERATE=1 rewrites it\n{documented}\n{text}"
        )
        return
    assert documented == text, f"docs/FAULTS.md differs; ARGOTUNE_REGENERATE=1 rewrites it\n{documented}\n{text}"


def check_guarantees(section: str, rows: Sequence[Guarantee]) -> None:
    """Compare a section with attacks and faults that are no failing call, or write it."""
    text = _render(section, GUARANTEE_HEAD, rows)
    if _is_regenerating():
        _write(section, text)
    documented = _sections(PAGE.read_text()).get(section, "nothing")
    assert documented == text, f"docs/FAULTS.md differs; ARGOTUNE_REGENERATE=1 rewrites it\n{documented}\n{text}"


def select_faults(kinds: Sequence[str], sample: int, turn: int) -> Sequence[str]:
    """Return the faults to inject into the call number ``turn``: ``sample`` of them in rotation, or all."""
    if not sample or sample >= len(kinds) or _injects_all():
        return kinds
    return [kinds[(turn * sample + offset) % len(kinds)] for offset in range(sample)]


def _injects_all() -> bool:
    """Return True if every fault is injected into every call."""
    return _is_regenerating() or os.environ.get("ARGOTUNE_EVERY_FAULT") == "1"


def _is_regenerating() -> bool:
    return os.environ.get("ARGOTUNE_REGENERATE") == "1"


def _merge(rows: Sequence[Row]) -> list[Row]:
    """Merge faults of a call with the same outcome, and repeated calls (polling), into one row."""
    faults: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        kinds = faults.setdefault((row.step, row.call, row.outcome), [])
        if row.fault not in kinds:
            kinds.append(row.fault)
    order = {(row.step, row.call): index for index, row in reversed(list(enumerate(rows)))}
    merged = [Row(step, call, ", ".join(kinds), outcome) for (step, call, outcome), kinds in faults.items()]
    return sorted(merged, key=lambda row: order[row.step, row.call])


def _render(section: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return f"## {section}\n\n" + "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def _rows(section: str) -> set[Row]:
    """Parse the rows of a section's table."""
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    cells = [[cell.replace("\\|", "|") for cell in re.split(r"(?<!\\) \| ", line[2:-2])] for line in lines]
    return {Row(step, call, kind, outcome) for step, call, kinds, outcome in cells for kind in kinds.split(", ")}


def _sections(page: str) -> dict[str, str]:
    parts = re.split(r"^(?=## )", page, flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0][3:]: part.rstrip("\n") + "\n" for part in parts}


def _write(section: str, text: str) -> None:
    PAGE.parent.mkdir(exist_ok=True)
    with (PAGE.parent / f".{PAGE.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sections = _sections(PAGE.read_text()) if PAGE.exists() else {}
        sections[section] = text
        PAGE.write_text("\n".join([TOP, *(sections[name] for name in sorted(sections))]))
    (PAGE.parent / f".{PAGE.name}.lock").unlink(missing_ok=True)
