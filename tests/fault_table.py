"""The table of docs/FAULTS.md: what becomes of a step when one call of it fails, written by the tests that try it.

A section belongs to one test, which gives all its rows; so tests may run in any order and in several processes.
``ARGOTUNE_REGENERATE=1`` writes the sections instead of comparing them.
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
    step: str, run: Callable[[str, int], tuple[Faults, str]], kinds: Sequence[str] = KINDS, most: int = 1000
) -> list[Row]:
    """Rows of a step for every call and fault; a call that is made again and again is tried ``most`` times.

    ``run(kind, call)`` gives the step a new server whose ``call``-th call fails as ``kind`` says (none, where kind is
    empty), checks what is there in the end, and returns the server's faults and the outcome in a few words.
    """
    calls = list(run("", 0)[0].calls)
    assert calls, f"{step} made no call"
    rows = []
    for number, call in enumerate(calls, 1):
        if calls[:number].count(call) > most:
            continue  # a poll, which is the same call each time
        for kind in kinds:
            faults, outcome = run(kind, number)
            assert faults.happened, f"{step}: call {number} ({call}) did not come again, so {kind} was not tried"
            rows.append(Row(step, call, kind, outcome))
    return rows


def check(section: str, rows: Sequence[Row]) -> None:
    """Compare a section of docs/FAULTS.md with what was found, or write it."""
    assert rows, f"no rows for {section}"
    text = f"## {section}\n\n{_table(_merged(rows))}"
    if os.environ.get("ARGOTUNE_REGENERATE") == "1":
        _write(section, text)
    found = _sections(PAGE.read_text()).get(section, "nothing")
    assert found == text, f"docs/FAULTS.md says otherwise; ARGOTUNE_REGENERATE=1 rewrites it\n{found}\n{text}"


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
