"""Parameters of a resumed run: renewed URLs, what --set changes after -p, and what cannot change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runner_documents import PRINT, QUICK, dag, inputs, leaf, log_of, task, workflow

from workflows import runner
from workflows.errors import InvalidInput
from workflows.runner.outcome import Outcome
from workflows.runner.parameters import with_parameters

OLD, NEW = ("https://example.com/a.parquet?file=1&sig=s3cr3t-" + part for part in ("old", "new"))
OTHER = NEW.replace("file=1", "file=2")
FAIL_ONCE = """import os, sys
failed = os.path.exists(sys.argv[1])
open(sys.argv[1], 'w')
print(*sys.argv[2:])
sys.exit(not failed)"""


def document(tmp_path: Path, **parameters: str) -> dict[str, Any]:
    """Return a Workflow whose two tasks print its parameters, but no URLs; the second one fails the first time."""
    arguments = {name: f"{{{{workflow.parameters.{name}}}}}" for name in parameters}
    printed = [f"{name}={{{{inputs.parameters.{name}}}}}" for name in parameters if "://" not in parameters[name]]
    return workflow(
        dag(task("first", arguments=arguments), task("second", depends="first", arguments=arguments)),
        leaf("first", PRINT, *printed, inputs=inputs(*parameters)),
        leaf("second", FAIL_ONCE, str(tmp_path / "failed"), *printed, inputs=inputs(*parameters)),
        parameters=dict(parameters),
    )


def start(tmp_path: Path, value: dict[str, Any], **given: str) -> None:
    outcome = runner.start(value, tmp_path / "run", name="x", parameters=given, timing=QUICK)
    assert outcome.phase == "Failed"


def resume(tmp_path: Path, value: dict[str, Any] | None, *overridden: str, **given: str) -> Outcome:
    return runner.resume(tmp_path / "run", document=value, answers=given, overridden=overridden, timing=QUICK)


@pytest.mark.parametrize("first", ["document", "-p"])
@pytest.mark.parametrize("then", ["document", "-p"])
def test_a_renewed_signature_replaces_the_old_one_and_repeats_nothing(tmp_path: Path, first: str, then: str) -> None:
    own = OLD if first == "document" else NEW.replace("file=1", "file=3")
    start(tmp_path, document(tmp_path, urls=own), **({"urls": OLD} if first == "-p" else {}))
    given = {"urls": NEW} if then == "-p" else {}
    (tmp_path / "failed").unlink()
    current = document(tmp_path, urls=NEW if then == "document" else own)
    assert resume(tmp_path, current, **given).phase == "Failed"
    queries = json.loads((tmp_path / "run" / "url-queries.json").read_text())
    assert NEW.partition("?")[2] in queries.values() and OLD.partition("?")[2] not in queries.values()
    assert "s3cr3t" not in (tmp_path / "run" / "state.json").read_text()
    outcome = resume(tmp_path, current)
    assert outcome.phase == "Succeeded", "the signature is remembered"
    assert [len(outcome.nodes[key].attempts) for key in ("first", "second")] == [1, 3]
    assert [outcome.nodes[key].inputs["urls"] for key in ("first", "second")] == [NEW, NEW]


def test_a_signature_can_be_renewed_again_and_again(tmp_path: Path) -> None:
    start(tmp_path, document(tmp_path, urls=OLD, more="https://example.com/b.parquet?sig=s3cr3t"))
    current = document(tmp_path, urls=OLD, more="https://example.com/b.parquet?sig=s3cr3t")
    for number in range(3):
        (tmp_path / "failed").unlink()
        outcome = resume(tmp_path, current, urls=f"{OLD}-{number}")
        assert outcome.nodes["second"].inputs["urls"] == f"{OLD}-{number}"
        queries = json.loads((tmp_path / "run" / "url-queries.json").read_text())
        assert sorted(queries.values()) == [f"file=1&sig=s3cr3t-old-{number}", "sig=s3cr3t"]


@pytest.mark.parametrize("first", ["document", "-p"])
def test_other_urls_are_rejected_by_name(tmp_path: Path, first: str) -> None:
    value = document(tmp_path, urls=OLD, text="1")
    start(tmp_path, value, **({"urls": OLD} if first == "-p" else {}))
    before = {file: file.read_text() for file in (tmp_path / "run").glob("*.json")}
    with pytest.raises(InvalidInput) as caught:
        resume(tmp_path, document(tmp_path, urls=OLD, text="2"), urls=OTHER)
    paths = [problem.path for problem in caught.value.problems]
    assert paths == ["-p urls", "spec.arguments.parameters[text].value"], "all together"
    assert "fix: remove -p urls, or start a new run" in str(caught.value) and "s3cr3t" not in str(caught.value)
    with pytest.raises(InvalidInput, match=r"spec.arguments.parameters\[urls\].value: changed"):
        resume(tmp_path, document(tmp_path, urls=OTHER, text="1"))
    assert before == {file: file.read_text() for file in (tmp_path / "run").glob("*.json")}
    assert resume(tmp_path, value).phase == "Succeeded"


@pytest.mark.parametrize(
    ("current", "overridden", "given", "expected", "later"),
    [
        ("1", (), {}, "3", "3"),  # nothing new: -p of the start
        ("5", (), {}, "5", "1"),  # the file is edited, and edited back
        ("5", ("budget-hours",), {}, "5", "5"),  # --set, and then nothing new
        ("1", ("budget-hours",), {}, "1", "1"),  # --set to the value of the document
        ("5", ("budget-hours",), {"budget-hours": "7"}, "7", "7"),  # both: -p, as on start
        ("5", (), {"budget-hours": "7"}, "7", "1"),  # -p comes before an edit, and not before a later one
    ],
)
def test_the_newest_value_of_a_parameter_counts(
    tmp_path: Path, current: str, overridden: tuple[str, ...], given: dict[str, str], expected: str, later: str
) -> None:
    own = document(tmp_path, **{"budget-hours": "1"})
    start(tmp_path, own, **{"budget-hours": "3"})
    (tmp_path / "failed").unlink()
    resume(tmp_path, document(tmp_path, **{"budget-hours": current}), *overridden, **given)
    assert f"budget-hours={expected}" in log_of(tmp_path / "run", "second", 2)
    assert runner.read_state(tmp_path / "run").parameters == {"budget-hours": expected}
    outcome = resume(tmp_path, own)
    assert outcome.phase == "Succeeded"
    assert f"budget-hours={later}" in log_of(tmp_path / "run", "second", 3)
    assert len(outcome.nodes["first"].attempts) == 1, "a finished node is not repeated"


def test_a_later_value_that_results_depend_on_is_rejected_instead_of_ignored(tmp_path: Path) -> None:
    own = document(tmp_path, epochs="1", rank="8")
    start(tmp_path, own, epochs="2")
    for overridden in ((), ("epochs",)):
        with pytest.raises(InvalidInput, match=r"spec.arguments.parameters\[epochs\].value: changed since"):
            resume(tmp_path, document(tmp_path, epochs="3", rank="8"), *overridden)
    with pytest.raises(InvalidInput, match=r"parameters\[epochs\].value: changed since"):
        resume(tmp_path, own, "epochs")
    with pytest.raises(InvalidInput, match="-p rank: changed since the run was started"):
        resume(tmp_path, own, rank="16")
    outcome = resume(tmp_path, document(tmp_path, epochs="2", rank="8"), "epochs", epochs="2", rank="8")
    assert outcome.phase == "Succeeded", "the values of the run"


def test_a_state_without_the_replaced_values_keeps_its_parameters(tmp_path: Path) -> None:
    """The state of a run that an earlier version has started."""
    own = document(tmp_path, epochs="1")
    start(tmp_path, own, epochs="2")
    file = tmp_path / "run" / "state.json"
    state = json.loads(file.read_text())
    assert list(state.pop("replaced")) == ["epochs"]
    file.write_text(json.dumps(state))
    assert resume(tmp_path, own).phase == "Succeeded"


def test_yaml_numbers_and_defaults_are_values(tmp_path: Path) -> None:
    own = document(tmp_path, number="1", flag="true", text="a")
    numbers, defaults = with_parameters(own, {}), with_parameters(own, {})
    numbers["spec"]["arguments"]["parameters"][:2] = [{"name": "number", "value": 1}, {"name": "flag", "value": True}]
    defaults["spec"]["arguments"]["parameters"][2] = {"name": "text", "default": "a"}
    start(tmp_path, defaults)
    with pytest.raises(InvalidInput, match="-p text"):
        resume(tmp_path, defaults, text="b")
    assert resume(tmp_path, defaults, text="a", number="1", flag="true").phase == "Succeeded"
