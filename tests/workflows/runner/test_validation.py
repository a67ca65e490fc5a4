"""What is refused before anything starts: by name, with its path, all at once."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from runner_documents import EXIT, SAY, dag, inputs, leaf, task, workflow, writer

from workflows import runner
from workflows.errors import InvalidInput


def refused(document: dict[str, Any]) -> str:
    with pytest.raises(InvalidInput) as caught:
        runner.check(document)
    return str(caught.value)


def good() -> dict[str, Any]:
    return workflow(dag(task("a")), leaf("a", EXIT, "0"))


def changed(path: str, value: Any) -> dict[str, Any]:
    document = good()
    place: Any = document
    *parents, last = path.split(".")
    for part in parents:
        place = place[int(part)] if part.isdecimal() else place.setdefault(part, {})
    place[last] = value
    return document


CLUSTER_FIELDS = {
    "metadata.uid": "x",
    "spec.serviceAccountName": "tuner",
    "spec.podGC": {"strategy": "OnPodSuccess"},
    "spec.ttlStrategy": {"secondsAfterSuccess": 1},
    "spec.volumeClaimGC": {"strategy": "OnWorkflowSuccess"},
    "spec.securityContext": {"runAsNonRoot": True},
    "spec.imagePullSecrets": [{"name": "x"}],
    "spec.podMetadata": {"labels": {}},
    "spec.workflowMetadata": {"labels": {}},
    "spec.synchronization": {"mutexes": [{"name": "x"}]},
    "spec.archiveLogs": True,
    "spec.templates.1.nodeSelector": {"sku": "gpu"},
    "spec.templates.1.tolerations": [{"key": "x"}],
    "spec.templates.1.affinity": {},
    "spec.templates.1.metadata": {"annotations": {"workflows.argoproj.io/progress": "0/100"}},
    "spec.templates.1.container.resources": {"limits": {"nvidia.com/gpu": "1"}},
    "spec.templates.1.container.securityContext": {"readOnlyRootFilesystem": True},
}


@pytest.mark.parametrize("path", CLUSTER_FIELDS)
def test_what_only_a_cluster_needs_is_accepted(path: str) -> None:
    runner.check(changed(path, CLUSTER_FIELDS[path]))


UNKNOWN_FIELDS = [
    "spec.hooks",
    "spec.templateDefaults",
    "spec.workflowTemplateRef",
    "spec.suspend",
    "spec.bogus",
    "spec.templates.1.memoize",
    "spec.templates.1.sidecars",
    "spec.templates.1.daemon",
    "spec.templates.1.script",
    "spec.templates.1.inputs.artifacts",
    "spec.templates.1.container.livenessProbe",
    "spec.templates.1.container.envFrom",
    "spec.templates.0.dag.target",
    "spec.templates.0.dag.tasks.0.continueOn",
    "spec.templates.0.dag.tasks.0.hooks",
]


@pytest.mark.parametrize("path", UNKNOWN_FIELDS)
def test_what_it_cannot_do_is_refused_with_its_path(path: str) -> None:
    written = ".".join(f"[{part}]" if part.isdecimal() else part for part in path.split(".")).replace(".[", "[")
    message = refused(changed(path, {"x": 1}))
    assert written in message
    assert f"`{path.rpartition('.')[2]}`" in message


def test_everything_is_refused_at_once() -> None:
    document = good()
    document["spec"]["bogus"] = 1
    document["spec"]["templates"][1]["memoize"] = {}
    document["spec"]["templates"][0]["dag"]["tasks"][0]["depends"] = "nobody"
    document["spec"]["onExit"] = "nothing"
    message = refused(document)
    for part in ("bogus", "memoize", "nobody", "nothing"):
        assert part in message


def test_a_suspend_that_ends_by_itself_is_refused_by_name() -> None:
    assert "suspend.duration" in refused(workflow(dag(task("a")), {"name": "a", "suspend": {"duration": "1h"}}))


def test_the_command_of_an_image_is_not_guessed() -> None:
    document = good()
    del document["spec"]["templates"][1]["container"]["command"]
    assert "spec.templates[1].container.command: a container needs a command" in refused(document)


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "entrypoint": (workflow(leaf("a", EXIT)), "no template is called `main`"),
    "template": (workflow(dag(task("a", "gone"))), "no template is called `gone`"),
    "two templates": (
        workflow(dag(task("a")), leaf("a", EXIT), leaf("a", EXIT)),
        "more than one template is called `a`",
    ),
    "two tasks": (workflow(dag(task("a"), task("a")), leaf("a", EXIT)), "more than one task is called `a`"),
    "name": (workflow(dag(task("a_b", "a")), leaf("a", EXIT)), "`a_b` is not a name"),
    "dependency": (workflow(dag(task("a", depends="b")), leaf("a", EXIT)), "no task is called `b`"),
    "depends syntax": (workflow(dag(task("a", depends="b &&")), leaf("a", EXIT)), "`b &&` doesn't parse"),
    "depends result": (workflow(dag(task("a"), task("b", "a", depends="a.Done")), leaf("a", EXIT)), "a.Done"),
    "depends both": (
        workflow(dag(task("a"), task("b", "a", depends="a"), task("c", "a", dependencies=["a"])), leaf("a", EXIT)),
        "either `depends` or `dependencies`",
    ),
    "items result": (
        workflow(dag(task("a"), task("b", "a", depends="a.AnySucceeded")), leaf("a", EXIT)),
        "`AnySucceeded` is for tasks with items",
    ),
    "cycle": (
        workflow(
            dag(task("a", depends="c"), task("b", "a", depends="a"), task("c", "a", depends="b")), leaf("a", EXIT)
        ),
        "tasks wait for each other: a -> c -> b -> a",
    ),
    "template cycle": (workflow(dag(task("a")), dag(task("b", "main"), name="a")), "templates call each other"),
    "when": (workflow(dag(task("a", when="x y")), leaf("a", EXIT)), "`x y` doesn't parse"),
    "input": (workflow(dag(task("a")), leaf("a", EXIT, inputs=inputs("n"))), "template `a` needs the input `n`"),
    "argument": (workflow(dag(task("a", arguments={"n": "1"})), leaf("a", EXIT)), "has no input `n`"),
    "workflow parameter": (
        workflow(dag(task("a")), leaf("a", SAY, "{{workflow.parameters.n}}")),
        "{{workflow.parameters.n}} has no value here",
    ),
    "label": (workflow(dag(task("a")), leaf("a", SAY, "{{workflow.labels.x}}")), "{{workflow.labels.x}} has no value"),
    "output": (
        workflow(
            dag(task("a"), task("b", depends="a", arguments={"x": "{{tasks.a.outputs.parameters.gone}}"})),
            writer("a", "1"),
            leaf("b", SAY, inputs=inputs("x")),
        ),
        "{{tasks.a.outputs.parameters.gone}} has no value",
    ),
    "not an ancestor": (
        workflow(
            dag(task("a"), task("b", arguments={"x": "{{tasks.a.outputs.parameters.out}}"})),
            writer("a", "1"),
            leaf("b", SAY, inputs=inputs("x")),
        ),
        "name a task that this one waits for",
    ),
    "expression tag": (workflow(dag(task("a")), leaf("a", SAY, "{{=1+1}}")), "{{=1+1}} is an expression tag"),
    "item": (workflow(dag(task("a")), leaf("a", SAY, "{{item.x}}")), "{{item.x}} has no value"),
    "failures": (workflow(dag(task("a")), leaf("a", SAY, "{{workflow.failures}}")), "exit handler alone"),
    "retry expression": (
        workflow(dag(task("a")), leaf("a", EXIT, retryStrategy={"expression": "asInt(lastRetry.code) > 1"})),
        "`lastRetry.code` is not one of",
    ),
    "retry of a dag": (
        workflow(dag(task("a"), retryStrategy={"limit": 1}), leaf("a", EXIT)),
        "honoured on containers",
    ),
    "retry limit": (
        workflow(dag(task("a")), leaf("a", EXIT, retryStrategy={"limit": "x"})),
        "`x` is not a whole number",
    ),
    "retry policy": (workflow(dag(task("a")), leaf("a", EXIT, retryStrategy={"retryPolicy": "Never"})), "retryPolicy"),
    "duration": (workflow(dag(task("a")), leaf("a", EXIT, timeout="2 days")), "`2 days` is not a duration"),
    "mount": (
        workflow(dag(task("a")), leaf("a", EXIT, container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
        "no volume is called `v`",
    ),
    "output path": (
        workflow(
            dag(task("a")), leaf("a", EXIT, outputs={"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]})
        ),
        "`/tmp/o` is not under a volume mount",
    ),
    "working folder": (
        workflow(dag(task("a")), leaf("a", EXIT, container={"workingDir": "/app"})),
        "`/app` is not under",
    ),
    "enum": (
        workflow(dag(task("a")), leaf("a", EXIT), parameters={"p": {"value": "maybe", "enum": ["yes", "no"]}}),
        "`maybe` is not one of yes, no",
    ),
    "pod patch": (workflow(dag(task("a")), leaf("a", EXIT), podSpecPatch="hostPID: true"), "only `terminationGrace"),
    "kind": ({"kind": "Deployment"}, "not a document of kind Workflow"),
    "two kinds": (
        workflow({"name": "main", "dag": {"tasks": [task("a", "main")]}, "steps": []}),
        "one of container, suspend, dag",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_work_is_refused_before_it_starts(case: str) -> None:
    document, message = BROKEN[case]
    assert message in refused(document)


def test_text_in_braces_of_others_is_no_concern_of_argo() -> None:
    runner.check(workflow(dag(task("a")), leaf("a", SAY, "{{ messages }}", "{{ unbalanced", "{{item}}", "{% if x %}")))


def test_templates_of_templates_and_schedules_are_accepted() -> None:
    spec = good()["spec"]
    runner.check({"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTemplate", "spec": spec})
    cron = {"schedules": ["0 3 * * *"], "timezone": "Europe/Berlin", "workflowSpec": spec}
    runner.check({"apiVersion": "argoproj.io/v1alpha1", "kind": "CronWorkflow", "spec": cron})


def start_refused(folder: Path, document: dict[str, Any], **options: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        runner.start(document, folder, name="x", **options)
    assert not folder.exists(), "nothing is written when the input is refused"
    return str(caught.value)


def test_parameters_are_checked_all_at_once(tmp_path: Path) -> None:
    parameters = {"p": {"value": "no", "enum": ["yes", "no"]}, "empty": {"description": "nobody gave one"}}
    document = workflow(dag(task("a")), leaf("a", EXIT, "0"), parameters=parameters)
    message = start_refused(tmp_path / "run", document, parameters={"p": "perhaps", "other": "1"})
    assert "no parameter is called `other`" in message
    assert "`perhaps` is not one of yes, no" in message
    assert "parameter `empty` has no value" in message


def test_secrets_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKEN", raising=False)
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]
    mounts = [{"name": "keys", "mountPath": "/keys"}, {"name": "nfs", "mountPath": "/nfs"}]
    volumes = [
        {"name": "keys", "secret": {"secretName": "push"}},
        {"name": "nfs", "nfs": {"server": "x", "path": "/"}},
    ]
    document = workflow(
        dag(task("a")), leaf("a", EXIT, "0", container={"env": env, "volumeMounts": mounts}), volumes=volumes
    )
    message = start_refused(tmp_path / "run", document)
    assert "export TOKEN=..." in message
    assert "the secret `push` isn't on this machine" in message
    assert "--volume nfs=FOLDER" in message


def test_volumes_given_for_nothing_are_refused(tmp_path: Path) -> None:
    message = start_refused(tmp_path / "run", good(), volumes={"cache": tmp_path})
    assert "no volume is called `cache`" in message


def test_a_folder_that_holds_a_run_is_not_taken(tmp_path: Path) -> None:
    runner.start(good(), tmp_path / "run", name="x")
    before = json.loads((tmp_path / "run" / "state.json").read_text())
    with pytest.raises(InvalidInput, match="a run is kept here already"):
        runner.start(good(), tmp_path / "run", name="y")
    assert json.loads((tmp_path / "run" / "state.json").read_text()) == before


def test_check_does_not_change_the_document() -> None:
    document = good()
    document["spec"]["bogus"] = 1
    before = copy.deepcopy(document)
    refused(document)
    assert document == before
