"""The report as an artifact: only where the site has a repository, and kept in the run folder on one machine."""

from pathlib import Path

import pytest
from plan_samples import BASE, EVALUATION, TUNING, compiled, planned
from runner_documents import QUICK, SAY, dag, leaf, task
from test_argo_schema import faults

from workflows import runner
from workflows.errors import InvalidInput
from workflows.lint import lint

STORED = BASE | TUNING | EVALUATION | {"artifacts.report": True}


def report_of(document: dict) -> dict:
    return next(template for template in document["spec"]["templates"] if template["name"] == "report")


def test_the_site_says_whether_there_is_a_repository(tmp_path):
    assert planned(tmp_path, "artifacts: {report: true}\n").artifacts.report
    assert not planned(tmp_path, "namespace: ml\n").artifacts.report


def test_the_artifact_is_the_page_itself_which_the_ui_shows():
    document = compiled(STORED)
    assert report_of(document)["outputs"] == {
        "parameters": [{"name": "report-path", "valueFrom": {"path": "/mnt/scratch/outputs/report-path"}}],
        "artifacts": [{"name": "report", "path": "/mnt/work/report/report.html", "archive": {"none": {}}}],
    }
    assert faults(document) == []
    assert lint([("stored.yaml", str(document).replace("None", "null"))]).errors == []


def test_without_a_repository_no_artifact_is_asked_for():
    assert "artifacts" not in str(
        [template.get("outputs") for template in compiled(BASE | TUNING)["spec"]["templates"]]
    )


def test_on_one_machine_the_report_is_kept_in_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ARGOTUNE_HOME", str(tmp_path / "home"))
    document = compiled(STORED)
    spec = document["spec"]
    spec["templates"] = [
        dag(task("say")),
        leaf("say", SAY, "done"),
        dag(task("report"), name="exit"),
        report_of(document),
    ]
    outcome = runner.start(document, tmp_path / "run", name="test", timing=QUICK)
    assert outcome.phase == "Succeeded", outcome.message
    [kept] = (tmp_path / "run").rglob("artifacts/report/report.html")
    written = Path(outcome.outputs["onExit.report"]["report-path"])
    assert kept.read_text() == written.read_text()
    assert "<!doctype html>" in kept.read_text()


def test_what_was_not_left_fails_the_step_unless_it_is_optional(tmp_path):
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
        [kept] = folder.rglob("artifacts/folder/made/a.txt")
        assert kept.read_text() == "a"
    assert "it did not write its outputs: promised" in outcome.message


@pytest.mark.parametrize(
    ("artifact", "what"),
    [
        ({"name": "x", "path": "/elsewhere"}, "`/elsewhere` is not under a volume mount"),
        ({"name": "x"}, "an artifact of a container has a `path`"),
        ({"name": "x", "path": "/mnt/work/x", "from": "y"}, "`from` can.t be done on one machine"),
    ],
)
def test_artifacts_that_cannot_be_kept_are_refused_before_anything_starts(artifact, what):
    document = compiled(STORED)
    report_of(document)["outputs"]["artifacts"] = [artifact]
    with pytest.raises(InvalidInput, match=what):
        runner.check(document)
