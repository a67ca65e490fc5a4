"""Damaged files of a run (workflow.json, state.json) are read, or refused with the directory and the reason."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import fuzz
import pytest
from mutations import mutate_document

from workflows import runner
from workflows.runner import state

DOCUMENT = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "Workflow",
    "metadata": {"name": "w"},
    "spec": {"entrypoint": "main", "templates": [{"name": "main", "container": {"image": "i", "command": ["true"]}}]},
}
ATTEMPT = {"number": 0, "phase": "Failed", "exit_code": 1, "started_at": 1.0, "finished_at": 2.0, "process": 99}
NODE = {
    "key": "main",
    "task": "main",
    "template": "main",
    "type": "Container",
    "phase": "Failed",
    "attempts": [ATTEMPT],
}
STATE: dict[str, Any] = {
    **{"name": "w", "uid": "1", "created_at": 1.0, "phase": "Failed", "main": "Failed", "started_at": 1.0},
    **{"cause": "main", "finished_at": 3.0, "parameters": {"a": "b"}, "outputs": {"x": "y"}, "nodes": {"main": NODE}},
}


def run(tmp_path: Path, kind: str, count: int) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    files = {"workflow.json": DOCUMENT, "state.json": STATE}
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))

    def read(content: bytes) -> None:
        (folder / kind).write_bytes(content)
        state.load(folder)
        runner.read_state(folder)

    fuzz.check(f"run {kind}", read, lambda chance: mutate_document(chance, files[kind]), count)


@pytest.mark.parametrize(("kind", "count"), fuzz.cases(("workflow.json", "state.json")))
def test_damaged_files_are_refused(tmp_path: Path, kind: str, count: int) -> None:
    run(tmp_path, kind, count)


def test_random_is_seeded() -> None:
    assert mutate_document(random.Random("a"), STATE) == mutate_document(random.Random("a"), STATE)
