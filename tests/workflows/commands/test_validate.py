"""``argotune validate`` and ``argotune presets``: what they print, how they end, and what they import."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from workflows import cli
from workflows.commands import presets
from workflows.plan import model
from workflows.spec.pipeline import Pipeline

KAITO = Path(__file__).parents[2] / "data" / "kaito"
TUNING = str(KAITO / "v1alpha1" / "v0.3.0_kaito_workspace_tuning_phi_3.yaml")
SERVING = str(KAITO / "kaito_workspace_phi_4.yaml")
BROKEN = str(KAITO / "kaito_workspace_tuning_falcon_7b_oai.yaml")


def test_a_valid_file(capsys):
    assert cli.main(["validate", TUNING, SERVING]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        f"{TUNING}: valid (workspace-tuning-phi-3, phi-3-mini-128k-instruct, qlora)",
        f"{SERVING}: valid (workspace-phi-4, phi-4, served)",
    ]
    assert f"warning: {TUNING}:6: resource.instanceType: Standard_NC6s_v3 is retired" in shown.err
    assert f"hint: {TUNING}:10: tuning: the adapter is packaged, but not served\n    fix: " in shown.err
    assert shown.err.splitlines()[-1] == (
        "not checked: data, model hub, registry (argotune preflight); cluster (argotune validate --cluster)"
    )


def test_only_what_the_files_name_is_reported_as_not_checked(capsys):
    assert cli.main(["validate", SERVING]) == 0
    shown = capsys.readouterr().err
    assert shown.splitlines()[-1] == (
        "not checked: model hub (argotune preflight); cluster (argotune validate --cluster)"
    )
    assert "hint: " not in shown
    assert cli.main(["validate", BROKEN]) == 2
    assert "not checked" not in capsys.readouterr().err


@pytest.mark.parametrize("preset", ["phi-3-mini-128k-instruct", "falcon-7b"])
def test_the_hint_to_serve_is_for_models_whose_adapters_can_be_served(capsys, tmp_path, preset):
    file = tmp_path / "workspace.yaml"
    file.write_text(Path(TUNING).read_text().replace("phi-3-mini-128k-instruct", preset))
    assert cli.main(["validate", str(file)]) == 0
    added = f"add inference: {{preset: {{name: {preset}}}}}"
    assert (added in capsys.readouterr().err) == (preset != "falcon-7b")


def test_invalid_files_are_reported_together_with_the_valid_ones(capsys, tmp_path):
    missing = str(tmp_path / "missing.yaml")
    assert cli.main(["validate", BROKEN, SERVING, missing]) == 2
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [f"{SERVING}: valid (workspace-phi-4, phi-4, served)"]
    assert shown.err.count("error: ") == 2
    assert f"error: {BROKEN}:17: tuning.config" in shown.err
    assert f"error: {missing}: cannot be read" in shown.err


def test_json(capsys):
    assert cli.main(["validate", "-o", "json", TUNING]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["valid"] is True
    [file] = report["files"]
    assert file["workspaces"] == [
        {
            "name": "workspace-tuning-phi-3",
            "preset": "phi-3-mini-128k-instruct",
            "method": "qlora",
            "served": False,
        }
    ]
    assert [warning["line"] for warning in file["warnings"]] == [6, 18, 19, 7]
    assert [hint["line"] for hint in file["hints"]] == [10]
    assert report["notChecked"] == ["data", "model hub", "registry", "cluster"]
    assert cli.main(["validate", "-o", "json", BROKEN, SERVING]) == 2
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert report["valid"] is False
    assert [len(file["problems"]) for file in report["files"]] == [1, 0]
    assert set(report["files"][0]["problems"][0]) == {"message", "path", "file", "line", "fix"}
    assert shown.err == ""


def test_standard_input():
    command = [sys.executable, "-m", "workflows.cli", "validate", "-"]
    with open(BROKEN, "rb") as file:
        shown = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=300)
    assert shown.returncode == 2
    assert "error: <stdin>:17: " in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize("arguments", [["validate", TUNING], ["presets", "ls"], ["--help"]], ids=lambda a: a[0])
def test_nothing_heavy_is_imported(arguments):
    code = f"""
import sys
from workflows import cli
try:
    code = cli.main({arguments!r})
except SystemExit as end:
    code = end.code
assert code == 0
heavy = {{"hera", "torch", "kubernetes", "azure", "transformers", "peft", "trl", "datasets", "requests", "pyarrow"}}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[-1] == "HEAVY []"


def test_presets_are_listed(capsys):
    assert cli.main(["presets", "ls"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert re.split("  +", header) == list(presets._COLUMNS)
    assert ["phi-4", "yes", "27.3Gi", "13.5", "30.3", "16384", "Standard_NV72ads_A10_v5", "6.52", "MIT", "-"] in [
        row.split() for row in rows
    ]
    assert cli.main(["presets", "ls", "-o", "name"]) == 0
    assert [row.split()[0] for row in rows] == capsys.readouterr().out.split()
    assert cli.main(["presets", "ls", "-o", "wide"]) == 0
    assert "187ef0342fff0eb3333be9f00389385e95ef0b61" in capsys.readouterr().out


def test_presets_are_listed_for_programs(capsys):
    assert cli.main(["presets", "ls", "-o", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert cli.main(["presets", "ls", "-o", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == listed
    assert {"phi-4", "gpt-oss-20b"} <= {facts["name"] for facts in listed}


def test_one_preset_is_shown(capsys):
    assert cli.main(["presets", "show", "mistralai/Mistral-7B-v0.3"]) == 0
    facts = yaml.safe_load(capsys.readouterr().out)
    assert (facts["name"], facts["aliases"]) == ("mistral-7b-v0.3", ["mistral-7b"])
    assert cli.main(["presets", "show", "phi3-mini"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_the_pipeline_block_and_the_plan_have_the_same_defaults():
    """Fields missing in a file have the plan's defaults; those of the block must be equal."""
    block = Pipeline()
    data, tuning, rollout, storage = model.Data(), model.Tuning(), model.Rollout(), model.Storage()
    assert model.Evaluation().model_dump() == block.evaluation.model_dump()
    for ours, theirs, names in (
        (block.data, data, ("eval_split", "allow_private_hosts")),
        (block.tune, tuning, ("timeout", "retries")),
        (block.rollout, rollout, ("question", "port", "deadline")),
        (block.storage, storage, ("size",)),
    ):
        assert [getattr(ours, name) for name in names] == [getattr(theirs, name) for name in names]
