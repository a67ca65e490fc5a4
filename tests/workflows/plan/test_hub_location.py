"""``pipeline.model.repository: hf://ORG/NAME[@REVISION]`` in the plan, and in the settings of its steps."""

from pathlib import Path

import pytest
from workspace_sample import GOOD, write

from workflows.compile import settings
from workflows.errors import InvalidInput
from workflows.load_plans import load_plans

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("repository", "revision", "resolved"),
    [
        (f"hf://someone/own-phi@{COMMIT}", None, COMMIT),
        (f"hf://someone/own-phi@{COMMIT}", "v1", COMMIT),
        ("hf://someone/own-phi", "v1", "v1"),
        ("hf://someone/own-phi", None, "main"),  # not the commit of the preset's repository
    ],
)
def test_steps_get_the_id_and_the_revision(
    tmp_path: Path, repository: str, revision: str | None, resolved: str
) -> None:
    values = [f"model.repository={repository}", *([f"model.revision={revision}"] if revision else [])]
    [plan] = load_plans([str(write(tmp_path, GOOD))], values)
    for step in (settings.fetch(plan), settings.preflight(plan), settings.tune(plan)):
        assert (step.model, step.revision) == ("someone/own-phi", resolved)


def test_an_invalid_location_is_an_error_of_its_field(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as raised:
        load_plans([str(write(tmp_path, GOOD))], ["model.repository=hf://own-phi"])
    [problem] = raised.value.problems
    assert (problem.path, problem.fix) == ("model.repository", "write hf://ORG/NAME or hf://ORG/NAME@REVISION")
