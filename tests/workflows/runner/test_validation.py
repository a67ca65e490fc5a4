"""Validation before a run: problems are reported together, with names and paths."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from runner_documents import EXIT, PRINT, dag, inputs, leaf, task, workflow, writer

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
def test_cluster_only_field_is_accepted(path: str) -> None:
    runner.check(changed(path, CLUSTER_FIELDS[path]))


UNSUPPORTED_FIELDS: dict[str, Any] = {
    "spec.hooks": {"exit": {"template": "a"}},
    "spec.templateDefaults": {"timeout": "1h"},
    "spec.workflowTemplateRef": {"name": "x"},
    "spec.suspend": True,
    "spec.bogus": 1,
    "spec.templates.1.memoize": {"key": "x", "maxAge": "1h", "cache": {"configMap": {"name": "x", "key": "x"}}},
    "spec.templates.1.sidecars": [{"name": "x", "image": "x"}],
    "spec.templates.1.daemon": True,
    "spec.templates.1.script": {"image": "x", "source": "x"},
    "spec.templates.1.container.livenessProbe": {},
    "spec.templates.1.container.envFrom": [{"secretRef": {"name": "x"}}],
    "spec.templates.0.dag.target": "a",
    "spec.templates.0.dag.tasks.0.hooks": {"exit": {"template": "a"}},
}


@pytest.mark.parametrize(
    ("artifact", "message"),
    [
        ({"name": "x", "path": "/x", "s3": {"key": "x"}}, "does not support `s3`"),
        ({"name": "x", "path": "/x", "optional": True}, "`/x` is not inside a volume mount"),
        ({"name": "x", "path": "/x", "raw": {"data": "x"}}, "`/x` is not inside a volume mount"),
    ],
)
def test_an_input_artifact_has_its_content_in_the_document(artifact: dict[str, Any], message: str) -> None:
    assert message in refused(changed("spec.templates.1.inputs", {"artifacts": [artifact]}))


@pytest.mark.parametrize("path", UNSUPPORTED_FIELDS)
def test_unsupported_field_is_rejected_with_its_path(path: str) -> None:
    written = ".".join(f"[{part}]" if part.isdecimal() else part for part in path.split(".")).replace(".[", "[")
    message = refused(changed(path, UNSUPPORTED_FIELDS[path]))
    assert written in message
    assert f"`{path.rpartition('.')[2]}`" in message


def test_all_problems_are_reported_together() -> None:
    document = good()
    document["spec"]["bogus"] = 1
    document["spec"]["templates"][1]["memoize"] = {}
    document["spec"]["templates"][0]["dag"]["tasks"][0]["depends"] = "missing"
    document["spec"]["onExit"] = "nothing"
    message = refused(document)
    for part in ("bogus", "memoize", "missing", "nothing"):
        assert part in message


def test_suspend_with_duration_is_rejected() -> None:
    assert "suspend.duration" in refused(workflow(dag(task("a")), {"name": "a", "suspend": {"duration": "1h"}}))


def test_command_is_required() -> None:
    document = good()
    del document["spec"]["templates"][1]["container"]["command"]
    assert "spec.templates[1].container.command: the local runner requires a command" in refused(document)


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "entrypoint": (workflow(leaf("a", EXIT)), "unknown template `main`"),
    "template": (workflow(dag(task("a", "gone"))), "unknown template `gone`"),
    "two templates": (
        workflow(dag(task("a")), leaf("a", EXIT), leaf("a", EXIT)),
        "duplicate name `a`",
    ),
    "two tasks": (workflow(dag(task("a"), task("a")), leaf("a", EXIT)), "duplicate name `a`"),
    "name": (workflow(dag(task("a_b", "a")), leaf("a", EXIT)), "`a_b` is not a valid name of a task"),
    "dependency": (workflow(dag(task("a", depends="b")), leaf("a", EXIT)), "unknown task `b`"),
    "depends syntax": (workflow(dag(task("a", depends="b &&")), leaf("a", EXIT)), "`b &&` does not parse"),
    "depends result": (
        workflow(dag(task("a"), task("b", "a", depends="a.Done")), leaf("a", EXIT)),
        "unknown result `Done`",
    ),
    "depends both": (
        workflow(dag(task("a"), task("b", "a", depends="a"), task("c", "a", dependencies=["a"])), leaf("a", EXIT)),
        "`dependencies` cannot be combined with `depends`",
    ),
    "items result": (
        workflow(dag(task("a"), task("b", "a", depends="a.AnySucceeded")), leaf("a", EXIT)),
        "`AnySucceeded` is only for tasks with items",
    ),
    "cycle": (
        workflow(
            dag(task("a", depends="c"), task("b", "a", depends="a"), task("c", "a", depends="b")), leaf("a", EXIT)
        ),
        "dependency cycle: a -> b -> c -> a",
    ),
    "template cycle": (
        workflow(dag(task("a")), dag(task("b", "main"), name="a")),
        "does not support recursion: main -> a -> main",
    ),
    "when": (workflow(dag(task("a", when="x y")), leaf("a", EXIT)), "`x y`: no operator between the words"),
    "input": (workflow(dag(task("a")), leaf("a", EXIT, inputs=inputs("n"))), "template `a` requires the input `n`"),
    "argument": (workflow(dag(task("a", arguments={"n": "1"})), leaf("a", EXIT)), "has no input `n`"),
    "workflow parameter": (
        workflow(dag(task("a")), leaf("a", PRINT, "{{workflow.parameters.n}}")),
        "{{workflow.parameters.n}} has no value here",
    ),
    "label": (
        workflow(dag(task("a")), leaf("a", PRINT, "{{workflow.labels.x}}")),
        "{{workflow.labels.x}} has no value",
    ),
    "output": (
        workflow(
            dag(task("a"), task("b", depends="a", arguments={"x": "{{tasks.a.outputs.parameters.gone}}"})),
            writer("a", "1"),
            leaf("b", PRINT, inputs=inputs("x")),
        ),
        "{{tasks.a.outputs.parameters.gone}}: `a` has no `outputs.parameters.gone`",
    ),
    "not an ancestor": (
        workflow(
            dag(task("a"), task("b", arguments={"x": "{{tasks.a.outputs.parameters.out}}"})),
            writer("a", "1"),
            leaf("b", PRINT, inputs=inputs("x")),
        ),
        "`b` does not depend on `a`",
    ),
    "expression tag": (
        workflow(dag(task("a")), leaf("a", PRINT, "{{=1+1}}")),
        "the expression tag {{=1+1}}",
    ),
    "item": (workflow(dag(task("a")), leaf("a", PRINT, "{{item.x}}")), "{{item.x}} has no value"),
    "failures": (
        workflow(dag(task("a")), leaf("a", PRINT, "{{workflow.failures}}")),
        "only available in the exit handler",
    ),
    "retry expression": (
        workflow(dag(task("a")), leaf("a", EXIT, retryStrategy={"expression": "asInt(lastRetry.code) > 1"})),
        "unknown variable `lastRetry.code`",
    ),
    "retry of a dag": (
        workflow(dag(task("a"), retryStrategy={"limit": 1}), leaf("a", EXIT)),
        "only on containers",
    ),
    "retry limit": (
        workflow(dag(task("a")), leaf("a", EXIT, retryStrategy={"limit": "x"})),
        "`x` is not an integer",
    ),
    "retry policy": (workflow(dag(task("a")), leaf("a", EXIT, retryStrategy={"retryPolicy": "Never"})), "retryPolicy"),
    "duration": (workflow(dag(task("a")), leaf("a", EXIT, timeout="2 days")), "`2 days` is not a duration"),
    "mount": (
        workflow(dag(task("a")), leaf("a", EXIT, container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
        "unknown volume `v`",
    ),
    "output path": (
        workflow(
            dag(task("a")), leaf("a", EXIT, outputs={"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]})
        ),
        "`/tmp/o` is not inside a volume mount",
    ),
    "working folder": (
        workflow(dag(task("a")), leaf("a", EXIT, container={"workingDir": "/app"})),
        "`/app` is not inside",
    ),
    "enum": (
        workflow(dag(task("a")), leaf("a", EXIT), parameters={"p": {"value": "maybe", "enum": ["yes", "no"]}}),
        "`maybe` is not in the enum",
    ),
    "pod patch": (workflow(dag(task("a")), leaf("a", EXIT), podSpecPatch="hostPID: true"), "only `terminationGrace"),
    "kind": ({"kind": "Deployment"}, "kind must be one of Workflow"),
    "two kinds": (
        workflow({"name": "main", "dag": {"tasks": [task("a", "main")]}, "steps": []}),
        "dag cannot be combined with steps",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_invalid_document_is_rejected(case: str) -> None:
    document, message = BROKEN[case]
    assert message in refused(document)


def test_braces_that_are_not_argo_tags_are_accepted() -> None:
    runner.check(
        workflow(dag(task("a")), leaf("a", PRINT, "{{ messages }}", "{{ unbalanced", "{{item}}", "{% if x %}"))
    )


def test_workflow_templates_and_cron_workflows_are_accepted() -> None:
    spec = good()["spec"]
    runner.check(
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTemplate", "metadata": {"name": "x"}, "spec": spec}
    )
    cron = {"schedules": ["0 3 * * *"], "timezone": "Europe/Berlin", "workflowSpec": spec}
    runner.check(
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "CronWorkflow", "metadata": {"name": "x"}, "spec": cron}
    )


TAGS_IN_NAMES = [
    {"name": "main", "steps": [[task("run-{{workflow.name}}", "a")]]},
    {"name": "main", "steps": [[task("a", "{{workflow.parameters.which}}")]]},
    leaf("main", EXIT, container={"volumeMounts": [{"name": "{{workflow.name}}", "mountPath": "/v"}]}),
]


@pytest.mark.parametrize("template", TAGS_IN_NAMES)
def test_tag_in_a_name_is_rejected(template: dict[str, Any]) -> None:
    arguments = {"parameters": [{"name": "which", "value": "a"}]}
    assert "does not support the tag in" in refused(workflow(template, leaf("a", EXIT), arguments=arguments))


def test_tag_without_a_value_in_the_local_runner_is_rejected() -> None:
    document = workflow(dag(task("a")), leaf("a", PRINT, "{{workflow.priority}}"), priority=1)
    assert "{{workflow.priority}} has no value in the local runner" in refused(document)


def start_refused(folder: Path, document: dict[str, Any], **options: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        runner.start(document, folder, name="x", **options)
    assert not folder.exists(), "nothing is written when the input is refused"
    return str(caught.value)


def test_problems_of_parameters_are_reported_together(tmp_path: Path) -> None:
    parameters = {"p": {"value": "no", "enum": ["yes", "no"]}, "empty": {"description": "no value"}}
    document = workflow(dag(task("a")), leaf("a", EXIT, "0"), parameters=parameters)
    message = start_refused(tmp_path / "run", document, parameters={"p": "perhaps", "other": "1"})
    assert "unknown parameter `other`" in message
    assert "`perhaps` is not one of yes, no" in message
    assert "parameter `empty` has no value" in message


def test_missing_secrets_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKEN", raising=False)
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]
    mounts = [{"name": "keys", "mountPath": "/keys"}, {"name": "nfs", "mountPath": "/nfs"}]
    volumes = [
        {"name": "keys", "secret": {"secretName": "push"}},
        {"name": "nfs", "nfs": {"server": "x", "path": "/"}},
        {"name": "all", "projected": {"sources": [{"secret": {"name": "pull"}}, {"configMap": {"name": "texts"}}]}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
    ]
    mounts += [{"name": name, "mountPath": f"/{name}"} for name in ("all", "token")]
    document = workflow(
        dag(task("a")), leaf("a", EXIT, "0", container={"env": env, "volumeMounts": mounts}), volumes=volumes
    )
    message = start_refused(tmp_path / "run", document)
    assert "export TOKEN=..." in message
    assert "the secret `push` has no local directory" in message
    assert "--volume nfs=DIRECTORY" in message
    assert "the secret `pull` has no local directory" in message
    assert "the configMap `texts` has no local directory" in message
    assert "the projected `token` has no local directory" in message


def test_a_claim_that_no_step_fills_needs_a_directory_with_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARGOTUNE_HOME", str(tmp_path / "home"))
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": f"my-{name}"}} for name in ("rows", "models")]
    mounts = [{"name": "rows", "mountPath": "/rows", "readOnly": True}, {"name": "models", "mountPath": "/models"}]
    document = workflow(dag(task("a")), leaf("a", EXIT, "0", container={"volumeMounts": mounts}), volumes=volumes)
    message = start_refused(tmp_path / "run", document)
    assert "the persistentVolumeClaim `my-rows` has no local directory" in message
    assert "--volume my-rows=DIRECTORY" in message
    assert "models" not in message

    filled = tmp_path / "home" / "volumes" / "my-rows"
    filled.mkdir(parents=True)
    assert "my-rows" in start_refused(tmp_path / "run", document)
    (filled / "rows.jsonl").touch()
    assert runner.start(document, tmp_path / "run", name="x").phase == "Succeeded"


def test_unknown_volume_is_rejected(tmp_path: Path) -> None:
    message = start_refused(tmp_path / "run", good(), volumes={"cache": tmp_path})
    assert "unknown volume `cache`" in message


@pytest.mark.parametrize("step", ["download", "rollout"])
def test_a_file_or_no_directory_for_a_volume_is_rejected(tmp_path: Path, step: str) -> None:
    mounts = [{"name": "cache", "mountPath": "/mnt/cache", "readOnly": True}]
    volumes = [{"name": "cache", "persistentVolumeClaim": {"claimName": "my-cache"}}]
    document = workflow(dag(task(step)), leaf(step, EXIT, "0", container={"volumeMounts": mounts}), volumes=volumes)
    file = tmp_path / "rows[1].jsonl"
    file.touch()
    message = start_refused(tmp_path / "run", document, volumes={"my-cache": file})
    assert f"needs a directory, and {file} is a file" in message
    assert f"pass its directory: --volume my-cache={tmp_path}" in message
    assert ("pipeline.data.pattern: rows[[]1].jsonl" in message) == (step == "download")
    message = start_refused(tmp_path / "run", document, volumes={"my-cache": tmp_path / "none"})
    assert f"does not exist: {tmp_path / 'none'}" in message and "--volume my-cache=DIRECTORY" in message


def test_directory_with_a_run_is_rejected(tmp_path: Path) -> None:
    runner.start(good(), tmp_path / "run", name="x")
    before = json.loads((tmp_path / "run" / "state.json").read_text())
    with pytest.raises(InvalidInput, match="already contains a run"):
        runner.start(good(), tmp_path / "run", name="y")
    assert json.loads((tmp_path / "run" / "state.json").read_text()) == before


def test_check_does_not_change_the_document() -> None:
    document = good()
    document["spec"]["bogus"] = 1
    before = copy.deepcopy(document)
    refused(document)
    assert document == before
