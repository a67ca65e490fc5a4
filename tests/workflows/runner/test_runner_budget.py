"""The parameter ``budget-hours`` of a resumed run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runner_documents import QUICK, dag, leaf, task, workflow

from workflows import runner
from workflows.errors import InvalidInput


def test_a_resumed_run_can_have_another_budget(tmp_path: Path) -> None:
    def document(hours: str) -> dict[str, Any]:
        enough = "import sys; sys.exit(0 if int(sys.argv[1]) > 1 else 6)"
        parameter = {"name": "budget-hours", "default": hours}
        limited = leaf("limited", enough, "{{inputs.parameters.budget-hours}}", inputs={"parameters": [parameter]})
        arguments = {"budget-hours": "{{workflow.parameters.budget-hours}}"}
        return workflow(dag(task("limited", arguments=arguments)), limited, parameters={"budget-hours": hours})

    folder = tmp_path / "run"
    assert runner.start(document("1"), folder, name="x", timing=QUICK).exit_code == 6
    assert runner.resume(folder, document=document("0"), timing=QUICK).exit_code == 6
    assert runner.resume(folder, document=document("2"), timing=QUICK).phase == "Succeeded"
    by_parameter = tmp_path / "other"
    assert runner.start(document("1"), by_parameter, name="y", timing=QUICK).exit_code == 6
    more = {"budget-hours": "3"}
    assert runner.resume(by_parameter, document=document("1"), answers=more, timing=QUICK).phase == "Succeeded"
    other = document("2")
    other["spec"]["templates"][1]["container"]["args"] = ["2"]
    with pytest.raises(InvalidInput):
        runner.resume(folder, document=other, timing=QUICK)
