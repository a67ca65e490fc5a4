"""Each leaf of KAITO's schemas has a row in docs/FIELDS.md, and the code behaves accordingly.

ARGOTUNE_REGENERATE=1 pytest tests/workflows/spec/test_spec_fields.py   rewrites docs/FIELDS.md.
"""

import os
from pathlib import Path
from typing import Any, get_origin

import kaito_fields
import pytest
import yaml
from kaito_fields import CRDS, INSIDE, ROWS, SAMPLES, case_path, cases, documents, leaves, merged

from workflows.compile.kinds import compile_as
from workflows.errors import InvalidInput
from workflows.load_plans import load_plans
from workflows.plan.model import Plan
from workflows.spec import kaito_annotations, load, training
from workflows.spec.findings import Findings
from workflows.spec.source import Source
from workflows.spec.training_keys import SECTIONS, Unsupported

CASES = list(cases())
NAMES = [f"{row['field']}-{case['in']}-{case['then']}-{number}" for number, (row, case) in enumerate(CASES)]
# Cases that each verdict requires.
PROOFS = {
    "supported": {"changes"},
    "partial": {"rejected"},
    "ignored": {"same", "warned"},
    "unsupported": {"rejected"},
}


@pytest.fixture(autouse=True)
def no_site_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


@pytest.mark.parametrize("kind", CRDS)
def test_every_leaf_of_the_schema_has_a_row(kind):
    rows = {row["field"] for row in ROWS}
    missing = []
    for leaf in leaves(kind):
        named = leaf.removeprefix("spec.template.") if leaf.startswith(INSIDE) else leaf
        if named not in rows:
            missing.append(leaf)
    assert missing == []


def test_every_row_is_a_field_of_the_schema():
    known = {leaf for kind in CRDS for leaf in leaves(kind)}
    ours = {"metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations"}
    assert {row["field"] for row in ROWS} <= known | ours


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["field"])
def test_every_row_is_proven(row):
    proofs = {case["then"] for case in row["cases"]}
    if row["field"] == "apiVersion":
        assert proofs == {"same", "rejected"}  # the versions are equivalent, and others are rejected
        return
    assert proofs & PROOFS[row["verdict"]]
    assert row["how"] and ("instead" in row) is (row["verdict"] in ("partial", "unsupported"))


@pytest.mark.parametrize(("row", "case"), CASES, ids=NAMES)
def test_the_code_matches_the_row(row, case, tmp_path):
    before, after = (write(tmp_path / name, text) for name, text in zip("ab", documents(case), strict=True))
    if case["then"] == "rejected":
        with pytest.raises(InvalidInput) as caught:
            load_plans(str(after))
        problems_by_path = {problem.path: problem for problem in caught.value.problems}
        assert case_path(row, case) in problems_by_path
        assert case["words"] in problems_by_path[case_path(row, case)].message
        assert problems_by_path[case_path(row, case)].line and problems_by_path[case_path(row, case)].fix is not None
        return
    [plan] = load_plans(str(after))
    if case["then"] == "warned":
        [manifest] = load(after)
        warnings = {warning.path: warning.message for warning in manifest.warnings}
        assert case["words"] in warnings[case_path(row, case)]
        return
    try:
        [without] = load_plans(str(before))
    except InvalidInput:  # the document is invalid without the field
        [without] = load_plans(str(write(tmp_path / "sample", yaml.safe_dump(SAMPLES[case["in"]]))))
    assert (compile_without_report(plan) != compile_without_report(without)) is (case["then"] == "changes")


@pytest.mark.parametrize("annotation", kaito_annotations.RULES)
def test_annotations_match_their_table(annotation, tmp_path):
    rule = kaito_annotations.RULES[annotation]
    values = [*rule.effective, *rule.accepted] or ([] if rule.reason else list(rule.known) or ["x"])
    for number, value in enumerate([*values, "something-else"]):
        patch = {"metadata": {"annotations": {annotation: value}}}
        text = yaml.safe_dump(merged(SAMPLES["serve"], patch))
        file = write(tmp_path / str(number), text)
        if value in values or (not rule.reason and not rule.known):
            [plan] = load_plans(str(file))
            effects = {"performance-mode": plan.rollout.server_arguments.get("performance-mode")}
            effects |= {"runtime": plan.rollout.runtime if plan.rollout.runtime != "vllm" else None}
            is_effective = annotation.removeprefix("kaito.sh/") in effects and value in rule.effective
            assert (value in effects.values()) is is_effective
            continue
        with pytest.raises(InvalidInput) as caught:
            load_plans(str(file))
        [problem] = caught.value.problems
        assert problem.path == f"metadata.annotations.{annotation}"
        assert problem.fix


@pytest.mark.parametrize("section", SECTIONS)
def test_training_config_keys_match_their_table(section):
    for key, rule in SECTIONS[section].items():
        found = Findings(Source("file"))
        nonsense = {"no such": "value"}
        read = training.parse({"training_config": {section: {key: nonsense}}}, "settings", found)
        messages = [(problem.path, problem.message) for problem in found.errors]
        if get_origin(rule) is dict or rule == dict[str, Any]:
            continue  # a mapping accepts any value
        assert [path for path, _ in messages] == [f"training_config.{section}.{key}"], key
        assert isinstance(rule, Unsupported) is messages[0][1].startswith("not supported: "), key
        assert dict(read.sections())[section] == {}, key


def test_page_is_current():
    text = kaito_fields.document()
    if os.environ.get("ARGOTUNE_REGENERATE"):
        kaito_fields.DOCUMENT.write_text(text)
    assert kaito_fields.DOCUMENT.read_text() == text


def write(folder: Path, text: str) -> Path:
    folder.mkdir()
    file = folder / "workspace.yaml"
    file.write_text(text)
    return file


def compile_without_report(plan: Plan) -> Any:
    """Return the Workflow without the report step, whose copy of the plan contains line numbers."""
    document = compile_as(plan, "workflow")
    document["spec"]["templates"] = [item for item in document["spec"]["templates"] if item["name"] != "report"]
    return document
