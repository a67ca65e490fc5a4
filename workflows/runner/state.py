"""What a run remembers on disk, so that it can be watched, and resumed after anything.

RUN/
  workflow.json   the document, with the parameters it was started with
  state.json      phase of every node, attempts, exit codes, times, outputs
  lock            held by the one runner at work here
  nodes/KEY/      logs, progress and scratch volumes of a node's attempts
  volumes/        volumes made for this run
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from steps.runtime import files
from workflows.argo.phase import Phase
from workflows.errors import InvalidInput, Problem


class Attempt(BaseModel):
    """One process of a leaf (Argo: one pod)."""

    number: int
    phase: Phase = Phase.RUNNING
    message: str = ""
    fix: str = ""
    exit_code: int | None = None
    started_at: float
    finished_at: float | None = None
    process: int | None = None
    """Process id, which is also that of its process group."""
    process_created: float | None = None
    """When the operating system started it, so that another process of the same id isn't taken for it."""


class Node(BaseModel):
    """A task, an item of a fan-out, a nested DAG, or a leaf."""

    key: str
    """``tune``; ``outer.inner`` inside a nested DAG; ``fan.0`` for an item; ``onExit.report``."""
    task: str
    """As Argo displays it: ``tune``, ``fan(0:a)``."""
    template: str
    type: str
    """``Container``, ``Suspend``, ``DAG``, ``TaskGroup``, or ``Skipped`` for what never ran."""
    phase: Phase = Phase.PENDING
    message: str = ""
    fix: str = ""
    cause: str = ""
    """Key of the leaf to which the failure of this node goes back."""
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    result: str | None = None
    exit_code: int | None = None
    started_at: float | None = None
    finished_at: float | None = None
    attempts: list[Attempt] = []


class State(BaseModel):
    """The whole run."""

    name: str
    uid: str
    created_at: float
    phase: Phase = Phase.PENDING
    message: str = ""
    main: Phase = Phase.PENDING
    """Phase of the workflow before its exit handler."""
    cause: str = ""
    time_limit_reached: bool = False
    started_at: float | None = None
    finished_at: float | None = None
    parameters: dict[str, str] = {}
    """Those given when the run was started, and answers given since."""
    volumes: dict[str, str] = {}
    """Folders given for claims and secrets."""
    outputs: dict[str, str] = {}
    """``{{workflow.outputs.parameters.x}}``, of parameters with a ``globalName``."""
    nodes: dict[str, Node] = {}


class Run:
    """A run folder, its document and its state."""

    def __init__(self, folder: Path, document: dict[str, Any], state: State) -> None:
        self.folder = folder
        self.document = document
        self.state = state

    def node_folder(self, key: str) -> Path:
        """Where the node keeps its logs and scratch volumes."""
        return self.folder / "nodes" / key

    def save(self) -> None:
        """Write the state, whole or not at all."""
        files.write_text(self.folder / "state.json", self.state.model_dump_json(indent=2) + "\n")

    def save_document(self) -> None:
        """Write the document."""
        files.write_json(self.folder / "workflow.json", self.document)


def load(folder: Path) -> Run:
    """The run kept in ``folder``.

    Raises:
        InvalidInput: there is none, or it can't be read.
    """
    try:
        document = json.loads((folder / "workflow.json").read_text())
        return Run(folder, document, State.model_validate_json((folder / "state.json").read_text()))
    except FileNotFoundError:
        raise InvalidInput(
            Problem("no run is kept here", path=str(folder), fix="start one without resuming")
        ) from None
    except (OSError, ValueError, ValidationError) as error:
        raise InvalidInput(Problem(f"the run kept here can't be read: {error}", path=str(folder))) from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runners out of ``folder``; the lock ends with the process, however that ends.

    Raises:
        InvalidInput: another runner is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInput(
                Problem("another argotune is at work on this run", path=str(folder), fix="wait for it, or stop it")
            ) from None
        yield


def changed_paths(old: Any, new: Any, path: str = "") -> list[str]:
    """Paths at which two documents differ; lists of named things are compared by name."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [p for key in keys for p in changed_paths(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    if isinstance(old, list) and isinstance(new, list):
        by_name = _by_name(old), _by_name(new)
        if by_name[0] is not None and by_name[1] is not None:
            names = [*by_name[0], *(name for name in by_name[1] if name not in by_name[0])]
            return [
                p
                for name in names
                for p in changed_paths(by_name[0].get(name), by_name[1].get(name), f"{path}[{name}]")
            ]
        if len(old) == len(new):
            return [p for i in range(len(old)) for p in changed_paths(old[i], new[i], f"{path}[{i}]")]
    return [] if old == new else [path]


def timestamp(moment: float) -> str:
    """A moment as Argo writes it (RFC 3339, whole seconds, UTC)."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _by_name(items: list[Any]) -> dict[str, Any] | None:
    named = {item["name"]: item for item in items if isinstance(item, dict) and isinstance(item.get("name"), str)}
    return named if items and len(named) == len(items) else None
