"""Small Workflows of real commands, and clocks and observers for the tests of the runner."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workflows import runner
from workflows.runner.control import Timing
from workflows.runner.outcome import Outcome
from workflows.runs.observer import Observer
from workflows.runs.status import RunStatus
from workflows.runs.step import Step

TIMEOUT_SECONDS = 120.0
OUT = "/mnt/scratch/out"

# Programs of the containers: small, so that a process takes a few hundredths of a second.
EXIT = "import sys; sys.exit(int(sys.argv[1]))"
PRINT = "import sys; print(*sys.argv[1:])"
WRITE = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"


def leaf(name: str, code: str, *args: str, **fields: Any) -> dict[str, Any]:
    """Return a template that runs ``code`` in Python; ``container`` has further fields of the container."""
    container = {
        "image": "any",
        "command": ["python", "-S", "-c", code],
        "args": list(args),
        **fields.pop("container", {}),
    }
    return {"name": name, "container": container, **fields}


def writer(name: str, value: str, *, default: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return a template that writes the output parameter ``out``."""
    source = {"path": OUT} | ({} if default is None else {"default": default})
    mounts = {"volumeMounts": [{"name": "scratch", "mountPath": "/mnt/scratch"}]}
    outputs = {"parameters": [{"name": "out", "valueFrom": source}]}
    return leaf(name, WRITE, OUT, value, container=mounts, outputs=outputs, **fields)


def task(name: str, template: str = "", *, arguments: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a task; ``template`` defaults to its name."""
    values = {"parameters": [{"name": key, "value": value} for key, value in (arguments or {}).items()]}
    return {"name": name, "template": template or name, "arguments": values, **fields}


def dag(*tasks: dict[str, Any], name: str = "main", **fields: Any) -> dict[str, Any]:
    """Return a DAG template; ``dag_fail_fast`` sets ``dag.failFast``."""
    dag_fields = {"failFast": fields.pop("dag_fail_fast")} if "dag_fail_fast" in fields else {}
    return {"name": name, "dag": {"tasks": list(tasks), **dag_fields}, **fields}


def workflow(*templates: dict[str, Any], parameters: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """Return a Workflow with entrypoint ``main``, an ``emptyDir`` ``scratch`` and a claim ``work``."""
    arguments = [{"name": k, **(v if isinstance(v, dict) else {"value": v})} for k, v in (parameters or {}).items()]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "test-", "labels": {"team": "red"}, "annotations": {"note": "a b"}},
        "spec": {
            "entrypoint": "main",
            "templates": list(templates),
            "arguments": {"parameters": arguments},
            "volumes": [{"name": "scratch", "emptyDir": {}}],
            "volumeClaimTemplates": [{"metadata": {"name": "work"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
            **spec,
        },
    }


def inputs(*names: str, **defaults: str) -> dict[str, Any]:
    """Return input parameters without and with defaults."""
    required = [{"name": name} for name in names]
    return {"parameters": [*required, *({"name": name, "default": value} for name, value in defaults.items())]}


def log_of(folder: Path, key: str, attempt: int = 1) -> str:
    """Return the log of an attempt."""
    return (folder / "nodes" / key / f"attempt-{attempt}.log").read_text()


def wait_for(condition: Callable[[], Any], description: str) -> Any:
    """Poll until ``condition`` returns a true value; fail after ``TIMEOUT_SECONDS``."""
    until = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < until:
        if result := condition():
            return result
        time.sleep(0.01)
    raise AssertionError(f"timed out after {TIMEOUT_SECONDS} s: {description}")


def is_alive(process: int) -> bool:
    """Return True if a process runs; a zombie does not."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


class Clock:
    """A clock that skips every sleep and records it."""

    def __init__(self) -> None:
        self.skipped = 0.0
        self.waits: list[float] = []

    @property
    def timing(self) -> Timing:
        return Timing(now=self.now, sleep=self.sleep, grace=5.0, poll=0.01)

    def now(self) -> float:
        return time.time() + self.skipped

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.skipped += seconds
        await asyncio.sleep(0)


class ClockAtFile(Clock):
    """A clock that jumps ahead by ``jump`` seconds once a file exists."""

    def __init__(self, file: Path, jump: float) -> None:
        super().__init__()
        self.file, self.jump = file, jump

    def now(self) -> float:
        return time.time() + (self.jump if self.file.exists() else 0.0)

    async def sleep(self, seconds: float) -> None:
        while not self.file.exists():
            await asyncio.sleep(0.01)


QUICK = Timing(grace=5.0, poll=0.01)


class Recorder(Observer):
    """Records the events of a run."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, str]] = []
        self.lines: list[tuple[str, str]] = []
        self.fractions: list[tuple[str, int, int]] = []
        self.ends: list[str] = []

    def on_step_change(self, step: Step) -> None:
        self.phases.append((step.key, step.phase))

    def on_log(self, step: Step, line: str) -> None:
        self.lines.append((step.key, line))

    def on_progress(self, step: Step, done: int, total: int) -> None:
        self.fractions.append((step.key, done, total))

    def on_end(self, run: RunStatus) -> None:
        self.ends.append(run.phase)


def exits() -> dict[str, Any]:
    """Return a container that exits with the input ``code``."""
    return leaf("exits", EXIT, "{{inputs.parameters.code}}", inputs=inputs(code="0"))


def echo() -> dict[str, Any]:
    """Return a container that prints the input ``text``."""
    return leaf("echo", PRINT, "{{inputs.parameters.text}}", inputs=inputs("text"))


def run(tmp_path: Path, document: dict[str, Any], **options: Any) -> Outcome:
    return runner.start(document, tmp_path / "run", name="test-1", timing=QUICK, **options)


def phases(outcome: Outcome) -> dict[str, str]:
    return {key: str(node.phase) for key, node in outcome.nodes.items()}


def log_text(tmp_path: Path, key: str) -> str:
    return log_of(tmp_path / "run", key).strip()
