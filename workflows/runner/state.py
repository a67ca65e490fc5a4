"""State of a run on disk, by which it can be watched and resumed after any interruption.

RUN/
  workflow.json   the document with the parameters of the run, without the queries of URLs
  state.json      phases, attempts, exit codes, times and outputs of the nodes, without the queries of URLs
  url-queries.json  the queries, until the run succeeds; only the owner can read these three files
  lock            locked by the runner; its process id and identity
  nodes/KEY/      logs, progress and scratch volumes of a node's attempts
  volumes/        volumes created for the run
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from steps.runtime import files, validation_messages
from steps.runtime.process_identity import process_identity
from workflows.argo.phase import Phase
from workflows.errors import InvalidInput, Problem
from workflows.runner.url_queries import UrlQueries


class Attempt(BaseModel):
    """An attempt of a container node: a process (Argo: a pod)."""

    number: int
    phase: Phase = Phase.RUNNING
    message: str = ""
    fix: str = ""
    permanent: bool = False
    """True if a retry would fail for the same reason."""
    exit_code: int | None = None
    started_at: float
    finished_at: float | None = None
    process: int | None = None
    """Process id, also the id of its process group."""
    process_identity: str = ""
    """Identity from the operating system, which differs if the id is reused."""


class Node(BaseModel):
    """A task, an item of a fan-out, or a nested DAG."""

    key: str
    """``tune``; ``outer.inner`` inside a nested DAG; ``fan.0`` for an item; ``onExit.report``."""
    task: str
    """Display name: ``tune``, ``fan(0:a)``."""
    template: str
    type: str
    """``Container``, ``Suspend``, ``DAG``, ``TaskGroup``, or ``Skipped`` for a node that never ran."""
    phase: Phase = Phase.PENDING
    message: str = ""
    fix: str = ""
    cause: str = ""
    """Key of the node that caused the failure of this node."""
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    result: str | None = None
    exit_code: int | None = None
    started_at: float | None = None
    finished_at: float | None = None
    attempts: list[Attempt] = []


class State(BaseModel):
    """State of a run."""

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
    """Values set by ``-p``, and answers to ``suspend`` templates."""
    replaced: dict[str, tuple[str, str]] = {}
    """Digests of the values of the document that ``parameters`` replaces, without and with signatures of URLs."""
    volumes: dict[str, str] = {}
    """Directories for claims, secrets and other volumes."""
    outputs: dict[str, str] = {}
    """``{{workflow.outputs.parameters.x}}``: outputs with a ``globalName``."""
    nodes: dict[str, Node] = {}


class Run:
    """A run directory, its document and its state."""

    def __init__(self, folder: Path, document: dict[str, Any], state: State) -> None:
        self.folder = folder
        self.document = document
        self.state = state
        self._queries = UrlQueries(folder)

    def node_folder(self, key: str) -> Path:
        """Return the directory of a node's logs and scratch volumes."""
        return self.folder / "nodes" / key

    def save(self) -> None:
        """Write the state atomically."""
        state = self._queries.hide(self.state.model_dump(mode="json"))
        text = json.dumps(state, indent=2, ensure_ascii=False)  # nodes stay in the order of their start
        files.write_text(self.folder / "state.json", text + "\n", private=True)

    def save_document(self) -> None:
        """Write the document."""
        files.write_json(self.folder / "workflow.json", self._queries.hide(self.document), private=True)

    def save_all(self) -> None:
        """Write state and document, and keep no queries of URLs but theirs."""
        self.save()  # first: the parameters of the state replace those of the document
        self.save_document()
        self._queries.keep_only(self.document, self.state.model_dump(mode="json"))

    def delete_queries(self) -> None:
        """Delete the queries of URLs, after which the run cannot be resumed."""
        self._queries.delete()


def load(folder: Path) -> Run:
    """Load the run in ``folder``, with the queries of its URLs.

    Raises:
        InvalidInput: there is none, or it cannot be read.
    """
    with _readable(folder):
        queries = UrlQueries(folder)
        document, state = (queries.restore(_read_json(folder / name)) for name in ("workflow.json", "state.json"))
        return Run(folder, document, State.model_validate(state))


def read(folder: Path) -> State:
    """Read the state of the run in ``folder``, without the queries of its URLs.

    Raises:
        InvalidInput: there is no run, or it cannot be read.
    """
    with _readable(folder):
        return State.model_validate(_read_json(folder / "state.json"))


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InvalidInput(
            Problem("no run in this directory", path=str(folder), fix="start a run without --resume")
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(
            Problem(
                f"cannot read the run in this directory: {_reason(error)}",
                path=str(folder),
                fix="delete it, and start a new run",
            )
        ) from None


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock ``folder`` for this runner; the operating system releases the lock when the process ends.

    Raises:
        InvalidInput: another runner has locked it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        fix = "make the directory writable, or use another one"
        raise InvalidInput(Problem(f"cannot be written: {error.strerror}", path=str(folder), fix=fix)) from None
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInput(
                Problem("another argotune process runs this run", path=str(folder), fix="wait for it or stop it")
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()} {process_identity(os.getpid())}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def runner_of(folder: Path) -> int:
    """Return the process id of the runner of a run; 0 if none is running."""
    try:
        pid, _, identity = (folder / "lock").read_text().strip().partition(" ")
        return int(pid) if identity and process_identity(int(pid)) == identity else 0
    except (OSError, ValueError):
        return 0


def changed_paths(old: Any, new: Any, path: str = "") -> list[str]:
    """Return the paths at which two documents differ; lists of named items are compared by name."""
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
    """Format a time as Argo does (RFC 3339, whole seconds, UTC)."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _by_name(items: list[Any]) -> dict[str, Any] | None:
    named = {item["name"]: item for item in items if isinstance(item, dict) and isinstance(item.get("name"), str)}
    return named if items and len(named) == len(items) else None


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    found = error.errors()
    shown = [f"{'.'.join(map(str, item['loc']))[:200]}: {validation_messages.describe(item)}" for item in found[:3]]
    return "; ".join([*shown, *([f"and {len(found) - 3} more"] if len(found) > 3 else [])])
