"""``argotune run --resume`` with ``--set``, after a start with ``-p``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_server import ScriptedServer, response

from workflows import runner
from workflows.plan import overrides
from workflows.plan.model import Plan

WORKSPACE = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: again}
tuning:
  preset: {name: smollm2-135m-instruct}
  method: lora
  input: {urls: [URL/missing.parquet]}
  output: {volumeSource: {persistentVolumeClaim: {claimName: adapter}}}
pipeline:
  data: {allowPrivateHosts: true}
  budget: {hours: 2}
"""


def test_a_later_set_comes_before_an_earlier_parameter(argotune: Callable[..., Any], tmp_path: Path) -> None:
    server = ScriptedServer(lambda method, target, headers: response(status="404 Not Found"))
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(WORKSPACE.replace("URL", server.url))
    (tmp_path / "adapter").mkdir()
    environment = {"HOME": str(tmp_path), "ARGOTUNE_HOME": str(tmp_path / "home"), "ARGOTUNE_RUNS": str(tmp_path)}

    def run(*flags: str) -> str:
        ended = argotune("run", workspace, *flags, **environment)
        assert ended.returncode == 2, ended.stdout + ended.stderr  # the data is missing
        return str(ended.stderr)

    with server:
        check(tmp_path, run)


def check(tmp_path: Path, run: Callable[..., str]) -> None:
    run("--name", "run", "-p", "budget-hours=9", "-p", "epochs=2", "-p", "rank=4")
    rejected = run("--resume", "--set", "tuning.epochs=1", "--set", "tuning.rank=16", "-p", "alpha=3")
    for name in ("-p alpha", "parameters[epochs].value", "parameters[rank].value"):
        assert f"{name}: changed since the run was started" in rejected, "all together"
    ended = run("--resume", "--set", "budget.hours=2")
    assert "missing.parquet: 404" in ended, "it has run"
    assert runner.read_state(tmp_path / "run").parameters == {"budget-hours": "2", "epochs": "2", "rank": "4"}


@pytest.mark.parametrize(("name", "path"), overrides.PARAMETERS.items())
def test_each_parameter_is_found_by_its_path(name: str, path: str) -> None:
    assert path in Plan.paths()
    assert name in overrides.parameters_of([f"{path}=1", "tuning.seed=1"])
    assert name not in overrides.parameters_of(["tuning.seed=1", f"{path}s=1"])


def test_parameters_of_several_paths_are_found_by_each() -> None:
    assert overrides.parameters_of(["budget.usd=5"]) == {"budget-hours"}
    assert overrides.parameters_of(["output.image=registry.example/a:1"]) == {"image", "push"}
