"""The verdict on each document of ``tests/data/lint/cases``, next to that of ``argo lint --offline`` 4.1.2."""

import csv
from pathlib import Path

import pytest

from workflows.lint import lint

CASES = Path(__file__).parents[2] / "data" / "lint" / "cases"
CLUSTER_RULES = {"unquoted-number", "null-item", "crd-schedule", "crd-size"}
"""Warnings about what an API server with Argo's full CRDs rejects."""

with (CASES / "verdicts.tsv").open() as file:
    VERDICTS = list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("row", VERDICTS, ids=lambda row: row["file"])
def test_verdict(row):
    report = lint([(row["file"], (CASES / row["file"]).read_text())])
    warned = CLUSTER_RULES & {finding.rule for finding in report.warnings}
    assert row["argotune"] == ("error" if report.errors else "warning" if warned else "ok")


def test_every_document_has_a_verdict():
    assert {row["file"] for row in VERDICTS} == {path.name for path in CASES.glob("*.yaml")}


def test_differences_from_argo_have_a_reason():
    for row in VERDICTS:
        differs = (row["argo"] == "refused") != (row["argotune"] == "error")
        assert differs == bool(row["reason"]), row["file"]
