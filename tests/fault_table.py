"""The table of docs/FAULTS.md: what becomes of a step when one call of it fails, written by the tests that try it.

A section belongs to one test, which gives all its rows; so tests may run in any order and in several processes.
``ARGOTUNE_REGENERATE=1`` writes the sections instead of comparing them. Where trying all would take minutes, a test
tries each call in some of the ways, in turn; ``ARGOTUNE_EVERY_FAULT=1`` (and writing) tries each in every way.
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
# What a failing call does to a step

Written by the tests: each lets one call of a step fail once, for every call and every fault, runs the step (again,
where it was killed), and looks at what the server has in the end: nothing made twice, nothing lost, nothing left.

| fault | what the server does |
|---|---|
| reset | resets the connection and does not perform the call |
| timeout | performs the call and sends no answer |
| 429 | refuses the call, with `Retry-After` |
| 500 | refuses the call |
| truncated | performs the call and sends half of the answer |
| killed | performs the call; the step's process gets SIGKILL before the answer, and is started again |
"""
HEAD = ("step", "call", "fault", "outcome")


class Row(NamedTuple):
    step: str
    call: str
    fault: str
    outcome: str


def sweep(
    step: str,
    run: Callable[[str, int], tuple[Faults, str]],
    kinds: Sequence[str] = KINDS,
    *,
    most: int = 1000,
    sample: int = 0,
) -> list[Row]:
    """Rows of a step for every call and fault; a call that is made again and again is tried ``most`` times.

    ``run(kind, call)`` gives the step a new server whose ``call``-th call fails as ``kind`` says (none, where kind is
    empty), checks what is there in the end, and returns the server's faults and the outcome in a few words. With
    ``sample``, each call fails in so many of the ways, the next call in the next ones, unless all are wanted.
    """
    calls = list(run("", 0)[0].calls)
    assert calls, f"{step} made no call"
    rows, turn = [], 0
    for number, call in enumerate(calls, 1):
        if calls[:number].count(call) > most:
            continue  # a poll, which is the same call each time
        for kind in ways(kinds, sample, turn):
            faults, outcome = run(kind, number)
            assert faults.happened, f"{step}: call {number} ({call}) did not come again, so {kind} was not tried"
            assert faults.failed == call, f"{step}: call {number} was {faults.failed} this time, not {call}"
            rows.append(Row(step, call, kind, outcome))
        turn += 1
    return rows


def by_name(run: Callable[[str, int, str], tuple[Faults, str]]) -> Callable[[str, int], tuple[Faults, str]]:
    """For ``sweep``: ``run(kind, call, name)``, where ``call`` counts those of a name alone.

    So a call that a busy machine lets take too long, and which is made once more, puts no other in its place.
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
    """``sweep`` where how often, or in which order, calls come differs from run to run: the first of each name fails.

    ``run(kind, name)`` is as that of ``sweep``.
    """
    names = list(dict.fromkeys(run("", "")[0].calls))
    assert names, f"{step} made no call"
    rows = []
    for turn, name in enumerate(sorted(names)):
        for kind in ways(kinds, sample, turn):
            faults, outcome = run(kind, name)
            assert faults.happened, f"{step}: {name} did not come again, so {kind} was not tried"
            rows.append(Row(step, name, kind, outcome))
    return rows


def check(section: str, rows: Sequence[Row], *, sample: bool = False) -> None:
    """Compare a section of docs/FAULTS.md with what was found, or write it; of a sample, what it has must stand there.

    A sample must have every call that the section has.
    """
    assert rows, f"no rows for {section}"
    text = f"## {section}\n\n{_table(_merged(rows))}"
    if _writes():
        _write(section, text)
    found = _sections(PAGE.read_text()).get(section, "nothing")
    if sample and not _all():
        known = _rows(found)
        lacking = [row for row in rows if row not in known]
        same_calls = {row[:2] for row in rows} == {row[:2] for row in known}
        assert not lacking and same_calls, f"docs/FAULTS.md says otherwise; write it anew\n{found}\n{text}"
        return
    assert found == text, f"docs/FAULTS.md says otherwise; ARGOTUNE_REGENERATE=1 rewrites it\n{found}\n{text}"


def ways(kinds: Sequence[str], sample: int, turn: int) -> Sequence[str]:
    """The ways in which the call of a turn fails: ``sample`` of them, in turn, unless all are wanted."""
    if not sample or sample >= len(kinds) or _all():
        return kinds
    return [kinds[(turn * sample + place) % len(kinds)] for place in range(sample)]


def _all() -> bool:
    """Whether every call is to fail in every way."""
    return _writes() or os.environ.get("ARGOTUNE_EVERY_FAULT") == "1"


def _writes() -> bool:
    return os.environ.get("ARGOTUNE_REGENERATE") == "1"


def _merged(rows: Sequence[Row]) -> list[Row]:
    """Faults of one call with one outcome on one line; a call that a step makes many times (polls) once."""
    faults: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        kinds = faults.setdefault((row.step, row.call, row.outcome), [])
        if row.fault not in kinds:
            kinds.append(row.fault)
    order = {(row.step, row.call): place for place, row in reversed(list(enumerate(rows)))}
    merged = [Row(step, call, ", ".join(kinds), outcome) for (step, call, outcome), kinds in faults.items()]
    return sorted(merged, key=lambda row: order[row.step, row.call])


def _table(rows: Sequence[Row]) -> str:
    lines = [HEAD, ("---",) * len(HEAD), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _rows(section: str) -> set[Row]:
    """The rows that a section's table tells of."""
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
