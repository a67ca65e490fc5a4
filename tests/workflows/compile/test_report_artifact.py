"""The report as an artifact: only if the site has a repository; a local run stores it in its run directory."""

import json
from pathlib import Path

import pytest
from plan_samples import BASE, EVALUATION, TUNING, compiled, planned
from runner_documents import PRINT, QUICK, dag, leaf, task
from test_argo_schema import faults

from workflows import runner
from workflows.errors import InvalidInput
from workflows.lint import lint

STORED = BASE | TUNING | EVALUATION | {"artifacts.report": True}


def report_of(document: dict) -> dict:
    return next(template for template in document["spec"]["templates"] if template["name"] == "report")


def test_the_site_profile_enables_and_disables_the_artifact(tmp_path):
    assert planned(tmp_path, "artifacts: {report: true}\n").artifacts.report is True
    assert planned(tmp_path, "artifacts: {report: false}\n").artifacts.report is False
    assert planned(tmp_path, "namespace: ml\n").artifacts.report is None


@pytest.mark.parametrize(
    ("values", "artifacts"),
    [
        ({}, [{"path": "/mnt/scratch/artifacts/report.html", "optional": True}]),
        ({"artifacts.report": True}, [{"path": "/mnt/work/report/report.html"}]),
        ({"artifacts.report": False}, []),
    ],
)
def test_the_artifact_is_the_html_page_that_the_ui_shows(values, artifacts):
    document = compiled(BASE | TUNING | EVALUATION | values)
    expected = [{"name": "report", "archive": {"none": {}}, **artifact} for artifact in artifacts]
    assert report_of(document)["outputs"].get("artifacts", []) == expected
    assert ("--artifact" in report_of(document)["container"]["args"]) == (values == {})
    assert faults(document) == []
    assert lint([("stored.yaml", str(document).replace("None", "null"))]).errors == []


def test_the_plan_is_a_file_and_no_argument():
    report = report_of(compiled(STORED))
    [plan] = report["inputs"]["artifacts"]
    assert json.loads(plan["raw"]["data"])["name"]["value"] == "phi"
    assert plan["path"] in report["container"]["args"]
    assert not [word for word in report["container"]["args"] if len(word) > 100]


@pytest.mark.parametrize("values", [{}, {"artifacts.report": True}])
def test_a_local_run_stores_the_report_in_the_run_directory(tmp_path, monkeypatch, values):
    monkeypatch.setenv("ARGOTUNE_HOME", str(tmp_path / "home"))
    document = compiled(BASE | TUNING | EVALUATION | values)
    spec = document["spec"]
    spec["templates"] = [
        dag(task("say")),
        leaf("say", PRINT, "done"),
        dag(task("report"), name="exit"),
        report_of(document),
    ]
    outcome = runner.start(document, tmp_path / "run", name="test", timing=QUICK)
    assert outcome.phase == "Succeeded", outcome.message
    [stored] = (tmp_path / "run").rglob("artifacts/report/report.html")
    written = Path(outcome.outputs["onExit.report"]["report-path"])
    assert stored.read_text() == written.read_text()
    assert "<!doctype html>" in stored.read_text()
    assert "phi-4" in stored.read_text()


def test_a_missing_artifact_fails_the_step_unless_it_is_optional(tmp_path):
    mounts = {"volumeMounts": [{"name": "scratch", "mountPath": "/mnt/scratch"}]}
    made = "import os, sys; os.makedirs(sys.argv[1]); open(sys.argv[1] + '/a.txt', 'w').write('a')"
    artifacts = [
        {"name": "folder", "path": "/mnt/scratch/made"},
        {"name": "maybe", "path": "/mnt/scratch/maybe", "optional": True},
        {"name": "promised", "path": "/mnt/scratch/promised", "s3": {"key": "x"}},
    ]
    for count, phase in ((2, "Succeeded"), (3, "Error")):
        step = leaf("make", made, "/mnt/scratch/made", container=mounts, outputs={"artifacts": artifacts[:count]})
        document = compiled(BASE | TUNING)
        document["spec"] |= {"templates": [dag(task("make")), step], "volumes": [{"name": "scratch", "emptyDir": {}}]}
        del document["spec"]["onExit"]
        folder = tmp_path / phase
        outcome = runner.start(document, folder, name="test", timing=QUICK)
        assert outcome.phase == phase
        [stored] = folder.rglob("artifacts/folder/made/a.txt")
        assert stored.read_text() == "a"
    assert "the outputs are missing: promised" in outcome.message


@pytest.mark.parametrize(
    ("artifact", "what"),
    [
        ({"name": "x", "path": "/elsewhere"}, "`/elsewhere` is not inside a volume mount"),
        ({"name": "x"}, "artifact `x` has no path"),
        ({"name": "x", "path": "/mnt/work/x", "from": "y"}, "the local runner does not support `from`"),
    ],
)
def test_unsupported_artifacts_are_rejected_before_anything_starts(artifact, what):
    document = compiled(STORED)
    report_of(document)["outputs"]["artifacts"] = [artifact]
    with pytest.raises(InvalidInput, match=what):
        runner.check(document)
