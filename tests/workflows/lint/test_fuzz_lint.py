"""Damaged Argo documents get findings of the linter, never an exception."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import fuzz
import pytest
import yaml
from mutations import mutate_bytes, mutate_json

from workflows.lint import lint

GOOD = [
    list(yaml.safe_load_all(path.read_text()))
    for path in sorted((Path(__file__).parents[2] / "data" / "lint" / "good").glob("*.yaml"))
]


class Findings(Exception):
    """The linter found something."""


def create(chance: random.Random) -> bytes:
    documents = [mutate_json(chance, document) for document in chance.choice(GOOD)]
    content = yaml.safe_dump_all(documents, allow_unicode=True).encode("utf-8", "surrogatepass")
    return mutate_bytes(chance, content) if chance.random() < 0.3 else content


def read(content: bytes) -> Any:
    findings = lint([("a.yaml", content.decode("utf-8", "replace"))]).findings
    for finding in findings:
        assert str(finding).startswith("a.yaml")
    if findings:
        raise Findings(str(findings[0]))


@pytest.mark.parametrize(("kind", "count"), fuzz.cases(["lint"], 60))
def test_damaged_documents_get_findings(kind: str, count: int) -> None:
    fuzz.check(kind, read, create, count, refusals=(Findings,))
