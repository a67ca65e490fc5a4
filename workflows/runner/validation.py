"""Checks before a run: the document is valid Argo (by the linter), and the local runner supports all of it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from workflows.argo import expressions
from workflows.argo.document import Document, Library
from workflows.argo.tags import EXPRESSION_TAG, TAG, is_argo_tag, tags
from workflows.argo.workflow import Retry, Template, Workflow
from workflows.errors import Problem, use_one_of
from workflows.field_path import join
from workflows.lint import lint_run, schema
from workflows.runner import suspends
from workflows.runner.volumes import Folder, Mounts

_REJECTED_WARNINGS = ("unknown-input", "when-doubtful")
"""Warnings of the linter about documents that the local runner cannot run."""
_WORKFLOW_TAGS = {
    f"workflow.{name}"
    for name in ("name", "uid", "namespace", "serviceAccountName", "mainEntrypoint", "creationTimestamp",
                 "creationTimestamp.RFC3339", "duration", "status", "failures", "parameters", "parameters.json")
}  # fmt: skip
_SUPPORTED_TAG = re.compile(
    r"(item|inputs\.parameters)\..+|inputs\.parameters|pod\.name|"
    r"(tasks|steps)\.[^.]+\.(id|status|exitCode|startedAt|finishedAt|outputs\.result|outputs\.parameters(\..+)?)"
)
_LEAF_FIELDS = ("retryStrategy", "timeout", "activeDeadlineSeconds")


def parse(value: dict[str, Any]) -> tuple[Workflow | None, list[Problem]]:
    """Return the document in typed parts, None when that is impossible, and every problem in it."""
    kind = str(value.get("kind")) if isinstance(value, dict) else ""
    if kind not in schema.KINDS:
        return None, [
            Problem(f"kind must be one of {', '.join(schema.KINDS)}", path="kind", fix="pass an Argo document")
        ]
    document = Document(kind, value, Library())
    findings = lint_run(value)
    problems = [f.problem for f in findings if f.severity == "error" or f.rule in _REJECTED_WARNINGS]
    workflow, unsupported = _parse_typed(document)
    if workflow and not problems:
        unsupported += _unsupported(workflow, document.path)
    reported = {problem.path for problem in problems}
    return workflow, problems + [problem for problem in unsupported if problem.path not in reported]


def check_parameters(workflow: Workflow, values: Mapping[str, str]) -> list[Problem]:
    """Return the problems of values for the workflow's parameters, and of answers to its ``suspend`` templates."""
    parameters = {parameter.name: parameter for parameter in workflow.spec.arguments.parameters}
    questions = suspends.all_questions(workflow.spec)
    known = use_one_of([*parameters, *questions], "remove it")
    unknown = [name for name in values if name not in parameters and name not in questions]
    problems = [Problem(f"unknown parameter `{name}`", "parameters", fix=known) for name in unknown]
    for name, parameter in parameters.items():
        value = values.get(name, parameter.default if parameter.value is None else parameter.value)
        if value is None:
            problems.append(Problem(f"parameter `{name}` has no value", "parameters", fix=f"pass -p {name}=VALUE"))
        elif name in values and parameter.enum and value not in parameter.enum:
            problems.append(_not_one_of(value, parameter.enum, name))
    return problems + check_answers(workflow, {name: values[name] for name in values if name in questions})


def check_answers(workflow: Workflow, answers: Mapping[str, str]) -> list[Problem]:
    """Return the problems of answers to the ``suspend`` templates of a workflow."""
    questions = suspends.all_questions(workflow.spec)
    problems = [
        Problem(f"no suspend template has the parameter `{name}`", "parameters", fix=f"remove -p {name}")
        for name in answers
        if name not in questions
    ]
    for name, question in questions.items():
        if name in answers and question.options and answers[name] not in question.options:
            problems.append(_not_one_of(answers[name], question.options, name))
    return problems


def _not_one_of(value: str, options: Sequence[str], name: str) -> Problem:
    return Problem(
        f"`{value}` is not one of {', '.join(options)}", f"parameters.{name}", fix=f"pass -p {name}={options[0]}"
    )


def _parse_typed(document: Document) -> tuple[Workflow | None, list[Problem]]:
    """Return the typed parts and the fields that the local runner does not support.

    If unsupported fields are the only problem, they are removed and the rest is returned.
    """
    value = copy.deepcopy({**document.value, "spec": document.spec})
    try:
        return Workflow.model_validate(value), []
    except ValidationError as error:
        errors = error.errors()
    problems = [_problem(document, details["type"], details["loc"], details["msg"]) for details in errors]
    if any(details["type"] != "extra_forbidden" for details in errors):
        return None, problems
    for details in errors:
        _remove(value, details["loc"])
    try:
        return Workflow.model_validate(value), problems
    except ValidationError:
        return None, problems


def _problem(document: Document, kind: str, location: tuple[int | str, ...], message: str) -> Problem:
    path = document.path if location[0] == "spec" else str(location[0])
    for part in location[1:]:
        path = join(path, part)
    fix = ""
    if kind == "extra_forbidden":
        message, fix = f"the local runner does not support `{location[-1]}`", "remove it, or submit to a cluster"
    elif path.endswith("container.command"):
        message, fix = "the local runner requires a command: it does not read the image", "add container.command"
    return Problem(message.removeprefix("Value error, "), path=path, fix=fix)


def _remove(value: Any, location: tuple[int | str, ...]) -> None:
    for part in location[:-1]:
        value = value[part]
    value.pop(location[-1], None)


def _unsupported(workflow: Workflow, path: str) -> list[Problem]:
    """Return what the local runner does not support in a valid document."""
    spec = workflow.spec
    problems = _check_names({f"{path}.entrypoint": spec.entrypoint, f"{path}.onExit": spec.on_exit})
    for index, template in enumerate(spec.templates):
        template_path = f"{path}.templates[{index}]"
        problems += [
            Problem(
                f"the local runner cannot evaluate the expression tag {tag}", template_path, fix="use a simple tag"
            )
            for tag in _expression_tags(template)
        ]
        problems += _unsupported_tags(workflow, template, template_path)
        if template.container:
            problems += _check_leaf(template, template_path)
        else:
            problems += _check_group(template, template_path)
    calls = {template.name: {task.template for task in template.tasks} for template in spec.templates}
    try:
        TopologicalSorter(calls).prepare()
    except CycleError as error:
        message = f"the local runner does not support recursion: {' -> '.join(error.args[1])}"
        problems.append(Problem(message, f"{path}.templates", fix="run it on a cluster, or use a loop"))
    return problems


def _check_leaf(template: Template, path: str) -> list[Problem]:
    container = template.container
    assert container
    problems = []
    if template.fail_fast:
        problems.append(Problem("`failFast` is only for dag and steps templates", path=path, fix="remove it"))
    mount_path = f"{path}.container.volumeMounts"
    problems += _check_names({f"{mount_path}[{i}].name": m.name for i, m in enumerate(container.volume_mounts)})
    mounts = Mounts([Folder(mount.mount_path.rstrip("/") or "/", Path(), True) for mount in container.volume_mounts])
    paths = {f"{path}.container.workingDir": container.working_dir}
    for output in template.outputs.parameters:
        output_path = f"{path}.outputs.parameters[{output.name}]"
        paths[output_path] = output.value_from.path if output.value_from else ""
        if not paths[output_path]:
            problems.append(
                Problem("an output of a container requires `valueFrom.path`", path=output_path, fix="add the file")
            )
    paths |= {f"{path}.outputs.artifacts[{output.name}]": output.path for output in template.outputs.artifacts}
    for artifact in template.inputs.artifacts:
        artifact_path = f"{path}.inputs.artifacts[{artifact.name}]"
        paths[artifact_path] = artifact.path
        if artifact.raw is None and not artifact.optional:
            fix = "set raw, or run it on a cluster"
            problems.append(Problem("an input artifact requires `raw` in the local runner", artifact_path, fix=fix))
    fix = "mount a volume at that path: the local runner does not use the file system of the image"
    for field, file in paths.items():
        if file and "{{" not in file and not mounts.host_path(file):
            problems.append(Problem(f"`{file}` is not inside a volume mount", path=field, fix=fix))
    if template.retry_strategy:
        problems += _check_retry(template.retry_strategy, f"{path}.retryStrategy")
    return problems


def _check_retry(retry: Retry, path: str) -> list[Problem]:
    problems = []
    if retry.expression:
        try:
            expressions.parse_retry(TAG.sub("0", retry.expression))
        except expressions.ExpressionError as error:
            problems.append(Problem(str(error), path=f"{path}.expression"))
    if retry.backoff and retry.backoff.duration == "0":
        problems.append(Problem("backoff.duration is required", path=f"{path}.backoff", fix="set it, for example 10s"))
    return problems


def _check_group(template: Template, path: str) -> list[Problem]:
    """Check a ``dag``, ``steps`` or ``suspend`` template."""
    fields = template.model_dump(by_alias=True)
    problems = [
        Problem(
            f"the local runner supports `{field}` only on containers",
            f"{path}.{field}",
            fix="move it to the templates of the tasks",
        )
        for field in _LEAF_FIELDS
        if fields[field] is not None
    ]
    fix = "move them to the templates of the tasks"
    if template.outputs.artifacts:
        message = "the local runner supports output artifacts only on containers"
        problems.append(Problem(message, f"{path}.outputs.artifacts", fix=fix))
    if template.inputs.artifacts:
        message = "the local runner supports input artifacts only on containers"
        problems.append(Problem(message, f"{path}.inputs.artifacts", fix=fix))
    tasks_path = f"{path}.{'dag.tasks' if template.dag else 'steps'}"
    for task in template.tasks:
        task_path = f"{tasks_path}[{task.name}]"
        problems += _check_names({f"{task_path}.name": task.name, f"{task_path}.template": task.template})
    if template.suspend is not None:
        return problems + suspends.check_suspend(template, path)
    for output in template.outputs.parameters:
        if not output.value_from or not output.value_from.parameter:
            output_path = f"{path}.outputs.parameters[{output.name}]"
            fix = "set it to {{tasks.NAME.outputs.parameters.NAME}}"
            problems.append(Problem("an output of tasks requires `valueFrom.parameter`", output_path, fix=fix))
    return problems


def _check_names(names: Mapping[str, str]) -> list[Problem]:
    return [
        Problem(f"the local runner does not support the tag in `{name}`", path, fix="write the name without tags")
        for path, name in names.items()
        if "{{" in name
    ]


def _unsupported_tags(workflow: Workflow, template: Template, path: str) -> list[Problem]:
    """Return the tags that have a value on a cluster but not in the local runner."""
    spec, metadata = workflow.spec, workflow.metadata
    supported = _WORKFLOW_TAGS | {f"workflow.parameters.{parameter.name}" for parameter in spec.arguments.parameters}
    supported |= {f"workflow.labels.{name}" for name in metadata.labels}
    supported |= {f"workflow.annotations.{name}" for name in metadata.annotations}
    outputs = [output for each in spec.templates for output in each.outputs.parameters]
    supported |= {f"workflow.outputs.parameters.{output.global_name}" for output in outputs if output.global_name}
    if template.container:
        supported |= {f"outputs.parameters.{output.name}.path" for output in template.outputs.parameters}
        supported |= {f"inputs.artifacts.{artifact.name}.path" for artifact in template.inputs.artifacts}
        supported |= {f"outputs.artifacts.{artifact.name}.path" for artifact in template.outputs.artifacts}
    return [
        Problem(f"{{{{{tag}}}}} has no value in the local runner", path=path, fix="remove it, or submit to a cluster")
        for tag in dict.fromkeys(tags(template.model_dump(by_alias=True)))
        if is_argo_tag(tag) and tag not in supported and not _SUPPORTED_TAG.fullmatch(tag)
    ]


def _expression_tags(template: Template) -> Iterator[str]:
    text = json.dumps(template.model_dump(by_alias=True), default=str)
    for match in EXPRESSION_TAG.finditer(text):
        yield text[match.start() : match.start() + 30].split("}}")[0] + "}}"
