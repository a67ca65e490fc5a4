"""Kill runs at random moments, resume them, and compare the results with an undisturbed run.

A moment is random over the rest of the run's life, right after a random write of the state, or in the exit handler.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from small_runs import SmallRun

from steps.runtime import gpu_time

ROWS = 8
SETTINGS = {"method": "lora", "epochs": 1}
TARGETS = ("runner and steps", "runner", "step")
AIMS = ("anywhere", "anywhere", "after a write", "exit handler")
"""Kinds of moments with their frequency."""
AFTER_THE_END = "after the end"
STARTUP_SECONDS = 1.5
TIMEOUT_SECONDS = 1500.0


@dataclass(frozen=True)
class Kill:
    """A kill, and the nodes that were running."""

    target: str
    aim: str
    place: str


@dataclass(frozen=True)
class Reference:
    """An undisturbed run."""

    adapter: str
    seconds: float
    spans: dict[str, tuple[float, float]]
    """Start and end of each node, in seconds after the start of the run."""
    document: Path
    files: frozenset[str]


def run_reference(folder: Path, home: Path) -> Reference:
    """Run undisturbed; return the result, and the document of the run with short waits between attempts."""
    run = SmallRun(folder, home, ROWS, **SETTINGS)
    started = time.monotonic()
    run.finish(run.begin())
    seconds = time.monotonic() - started
    text = (run.folder / "workflow.json").read_text().replace('"duration": "10s"', '"duration": "1"')
    document = folder / "workflow.json"
    document.write_text(text)
    state = run.state()
    spans = {
        key: (node["started_at"] - state["started_at"], node["finished_at"] - state["started_at"])
        for key, node in run.nodes().items()
    }
    return Reference(run.adapter(), seconds, spans, document, frozenset(files_of(run)))


def kill_and_resume(folder: Path, home: Path, reference: Reference, kills: int, rng: random.Random) -> Iterator[Kill]:
    """Yield up to ``kills`` kills of one run, which is resumed after each, then check its result.

    Raises:
        AssertionError: with all differences to the undisturbed run.
    """
    run = SmallRun(folder, home, ROWS, **SETTINGS)
    run.file = reference.document
    process = run.begin()
    kill: Kill | None = None
    try:
        for aim in sorted(rng.choices(AIMS, k=kills), key=("anywhere", "after a write", "exit handler").index):
            kill = _kill(run, process, aim, rng, reference)
            if kill is None:
                break
            yield kill
            if kill.place == AFTER_THE_END:
                break
            if process.poll() is not None:
                process = run.start("--resume") if run.state() else run.begin()
        code = process.wait(timeout=TIMEOUT_SECONDS)
    finally:
        process.kill()
    assert code == 0 or (kill and kill.place == AFTER_THE_END), f"exit code {code}\n{run.log.read_text()}"
    assert not (differences := list(compare(run, reference))), f"{folder}: {'; '.join(differences)}"


def compare(run: SmallRun, reference: Reference) -> Iterator[str]:
    """Yield what differs from the undisturbed run."""
    state = run.state()
    if (state["phase"], state["main"]) != ("Succeeded", "Succeeded"):
        yield f"phase {state['phase']}, main {state['main']}"
    yield from (f"{key}: {node['phase']}" for key, node in state["nodes"].items() if node["phase"] != "Succeeded")
    if run.adapter() != reference.adapter:
        yield f"adapter {run.adapter()}, not {reference.adapter}"
    adapter = run.work / "adapter" / "adapter_model.safetensors"
    if (run.adapter_volume / adapter.name).read_bytes() != adapter.read_bytes():
        yield "another adapter in the output volume"
    report = run.work / "report" / "report.html"
    if not report.exists() or run.adapter() not in report.read_text():
        yield "the report does not name the adapter"
    files = frozenset(files_of(run))
    yield from (f"additional file {name}" for name in sorted(files - reference.files))
    yield from (f"missing file {name}" for name in sorted(reference.files - files))


def files_of(run: SmallRun) -> Iterator[str]:
    """Yield the files of the run without those of attempts; blobs, named by digest, count as one.

    The records of GPU time, one for each attempt, are files of attempts too.
    """
    for root in (run.folder, run.adapter_volume):
        for path in root.rglob("*"):
            name = path.relative_to(root)
            if path.is_dir() or name.parts[0] == "nodes" or name.parent.name == gpu_time.FOLDER:
                continue
            yield str(name.parent / "*" if name.parent.name == "sha256" and len(name.name) == 64 else name)


def _kill(
    run: SmallRun, process: subprocess.Popen[bytes], aim: str, rng: random.Random, reference: Reference
) -> Kill | None:
    """Kill at a random moment; return None if the run ended first."""
    target = rng.choice(TARGETS)
    if aim == "anywhere":
        _wait_for_moment(run, process, rng, reference)
    elif aim == "after a write":
        for _ in range(rng.randint(1, 6)):
            written = _version(run)
            _wait(process, 60, lambda written=written: _version(run) != written)
        _wait(process, rng.uniform(0, 0.03))
    else:
        _wait(process, TIMEOUT_SECONDS, lambda: run.state().get("main") == "Succeeded")
        started, ended = reference.spans["onExit"]
        _wait(process, rng.uniform(0, ended - started))
    if target == "step":
        _wait(process, 10, lambda: bool(_steps(process)))
    victims = _victims(process, target)
    if process.poll() is not None or not victims:
        return None
    for victim in victims:
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    if target != "step":
        process.wait()
    return Kill(target, aim, _place(run))


def _wait_for_moment(
    run: SmallRun, process: subprocess.Popen[bytes], rng: random.Random, reference: Reference
) -> None:
    """Wait until a random moment of the steps that have not ended, by the times of the undisturbed run."""
    ended = [reference.spans[key][1] for key, node in run.nodes().items() if node["phase"] == "Succeeded"]
    start = max(ended, default=-STARTUP_SECONDS)
    moment = rng.uniform(start, max(reference.spans["onExit"][0], start + 0.1))
    started = max((span[0] for span in reference.spans.values() if span[0] <= moment), default=start)
    running = [key for key, span in reference.spans.items() if span[0] == started]
    if running:
        _wait(process, TIMEOUT_SECONDS, lambda: running[0] in run.nodes())
    _wait(process, moment - started)


def _victims(process: subprocess.Popen[bytes], target: str) -> list[int]:
    steps = _steps(process)
    return {"runner": [process.pid], "step": steps[:1], "runner and steps": [process.pid, *steps]}[target]


def _steps(process: subprocess.Popen[bytes]) -> list[int]:
    """Return the process ids of the steps and their children."""
    try:
        return [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    except psutil.Error:
        return []


def _wait(process: subprocess.Popen[bytes], seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline and not until():
        time.sleep(0.004)


def _version(run: SmallRun) -> tuple[int, int]:
    """Return the identity of the state file, which each write replaces."""
    try:
        status = (run.folder / "state.json").stat()
    except FileNotFoundError:
        return (0, 0)
    return status.st_ino, status.st_mtime_ns


def _place(run: SmallRun) -> str:
    state: dict[str, Any] = run.state()
    if not state:
        return "before the first write"
    running = [key for key, node in state["nodes"].items() if node["phase"] == "Running" and key != "onExit"]
    if running:
        return ", ".join(running)
    if state["finished_at"]:
        return AFTER_THE_END
    return "between steps of the exit handler" if state["main"] == "Succeeded" else "between steps"
