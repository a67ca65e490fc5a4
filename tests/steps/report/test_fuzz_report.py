"""Damaged files of earlier steps, and damaged values of Argo, never prevent a report."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import fuzz
import pytest
from mutations import TEXTS, mutate_document
from report_sample import write_run

from steps.report import step
from steps.report.settings import Settings

FAILURES = [
    {"displayName": "tune(0)", "message": "failed", "templateName": "tune", "finishedAt": "2026-01-01T00:00:00Z"}
]
PLAN = {"preset": {"value": "x", "origin": "a.yaml:1"}, "tuning": {"method": "qlora"}}


def run(tmp_path: Path, kind: str, count: int) -> None:
    write_run(tmp_path)
    files = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*.json*"))}

    def create(chance: random.Random) -> tuple[Path, bytes, str, str]:
        path = chance.choice(list(files))
        try:
            content = mutate_document(chance, json.loads(files[path]))
        except ValueError:  # lines
            content = mutate_document(chance, {"step": 1, "loss": 0.5}) + b"\n" + files[path]
        texts = [mutate_document(chance, value).decode("utf-8", "replace") for value in (FAILURES, PLAN)]
        return path, content, chance.choice([texts[0], *TEXTS]), chance.choice([texts[1], "{}"])

    def read(value: tuple[Path, bytes, str, str]) -> Any:
        path, content, failures, plan = value
        path.write_bytes(content)
        try:
            settings = Settings.model_validate(
                {"work": str(tmp_path), "failures": failures, "plan": plan, "status": "Failed"}
            )
            step.report(settings)
        finally:
            path.write_bytes(files[path])

    fuzz.check("report", read, create, count, min_refused=0)


@pytest.mark.parametrize(("kind", "count"), fuzz.cases(["report"], 60))
def test_damaged_files_do_not_prevent_a_report(tmp_path: Path, kind: str, count: int) -> None:
    run(tmp_path, kind, count)
