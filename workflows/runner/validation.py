"""What can be known to go wrong before anything starts: names, cycles, tags, expressions, mounts.

These are the rules of ``argo lint`` (``workflow/validate/validate.go``) for what the runner runs, and what lint leaves
out: the syntax of ``depends``, ``when`` and ``retryStrategy.expression``, and a volume for every mount.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workflows.argo import expressions
from workflows.argo.dag import Graph
from workflows.argo.tags import EXPRESSION_TAG, TAG, is_argo_tag, tags
from workflows.argo.workflow import Retry, Spec, Task, Template, Workflow
from workflows.errors import Problem
from workflows.runner import suspends
from workflows.runner.volumes import Folder, Mounts

_NOWHERE = Path()
_NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")
_PARAMETER = re.compile(r"[-a-zA-Z0-9_]+")
_ALWAYS = {f"workflow.{name}" for name in ("name", "uid", "namespace", "serviceAccountName", "mainEntrypoint")} | {
    f"workflow.{name}" for name in ("creationTimestamp", "creationTimestamp.RFC3339", "duration", "status")
} | {"workflow.parameters", "workflow.parameters.json", "inputs.parameters"}  # fmt: skip


def problems(workflow: Workflow) -> list[Problem]:
    """Everything that is wrong with a document whose fields are all known."""
    spec = workflow.spec
    names = [template.name for template in spec.templates]
    found = [*_unique(names, "spec.templates", "template")]
    found += _unique([p.name for p in spec.arguments.parameters], "spec.arguments.parameters", "parameter", _PARAMETER)
    for role, name in (("entrypoint", spec.entrypoint), ("onExit", spec.on_exit)):
        if name not in names and (name or role == "entrypoint"):
            found.append(Problem(f"no template is called `{name}`", path=f"spec.{role}"))
    for parameter in spec.arguments.parameters:
        if parameter.enum and parameter.value is not None and parameter.value not in parameter.enum:
            path = f"spec.arguments.parameters[{parameter.name}].value"
            found.append(Problem(f"`{parameter.value}` is not one of {', '.join(parameter.enum)}", path=path))
    for index, template in enumerate(spec.templates):
        path = f"spec.templates[{index}]"
        if names.index(template.name) == index:
            found += _template(workflow, template, path)
    if not found:
        found += _template_rings(spec) + _failures_outside_exit(spec) + _entry_inputs(spec)
    return found


def parameter_problems(workflow: Workflow, given: Mapping[str, str]) -> list[Problem]:
    """What is wrong with the values given for the workflow's parameters, and with answers given beforehand."""
    parameters = {parameter.name: parameter for parameter in workflow.spec.arguments.parameters}
    questions = suspends.all_questions(workflow.spec)
    known = f"the workflow has: {', '.join([*parameters, *questions]) or 'none'}"
    unknown = [name for name in given if name not in parameters and name not in questions]
    found = [Problem(f"no parameter is called `{name}`", "parameters", fix=known) for name in unknown]
    for name, parameter in parameters.items():
        value = given.get(name, parameter.default if parameter.value is None else parameter.value)
        if value is None:
            found.append(Problem(f"parameter `{name}` has no value", "parameters", fix=f"give one: -p {name}=VALUE"))
        elif name in given and parameter.enum and value not in parameter.enum:
            found.append(Problem(f"`{value}` is not one of {', '.join(parameter.enum)}", f"parameters.{name}"))
    return found + answer_problems(workflow, {name: given[name] for name in given if name in questions})


def answer_problems(workflow: Workflow, answers: Mapping[str, str]) -> list[Problem]:
    """What is wrong with answers to the ``suspend`` templates of a workflow."""
    questions = suspends.all_questions(workflow.spec)
    unknown = [name for name in answers if name not in questions]
    found = [Problem(f"nothing asks for `{name}`", "parameters", fix=f"leave -p {name} out") for name in unknown]
    for name, question in questions.items():
        if name in answers and question.options and answers[name] not in question.options:
            what = f"`{answers[name]}` is not one of {', '.join(question.options)}"
            found.append(Problem(what, f"parameters.{name}"))
    return found


def _template(workflow: Workflow, template: Template, path: str) -> list[Problem]:
    kinds = [kind for kind in ("container", "suspend", "dag", "steps") if getattr(template, kind) is not None]
    if len(kinds) != 1:
        return [Problem("a template is one of container, suspend, dag, steps", path=path)]
    inputs = [parameter.name for parameter in template.inputs.parameters]
    outputs = [output.name for output in template.outputs.parameters]
    found = _unique(inputs, f"{path}.inputs.parameters", "parameter", _PARAMETER)
    found += _unique(outputs, f"{path}.outputs.parameters", "parameter", _PARAMETER)
    artifacts = [artifact.name for artifact in template.outputs.artifacts]
    found += _unique(artifacts, f"{path}.outputs.artifacts", "artifact", _PARAMETER)
    if artifacts and not template.container:
        found.append(Problem("artifacts are left by containers alone", path=f"{path}.outputs.artifacts"))
    found += [
        Problem(f"{where} is an expression tag, which only a cluster can evaluate", path=path, fix="use a simple tag")
        for where in _expression_tags(template.model_dump(by_alias=True))
    ]
    if template.suspend is not None:
        return found + suspends.problems(template, path)
    return found + (_leaf(workflow, template, path) if template.container else _dag(workflow, template, path))


def _leaf(workflow: Workflow, template: Template, path: str) -> list[Problem]:
    container = template.container
    assert container
    found = []
    if template.parallelism is not None or template.fail_fast:
        found.append(Problem("`parallelism` and `failFast` are for dag and steps", path=path))
    volumes = {volume.name for volume in [*workflow.spec.volumes, *template.volumes]}
    volumes |= {claim.metadata.name for claim in workflow.spec.volume_claim_templates}
    for index, mount in enumerate(container.volume_mounts):
        if mount.name not in volumes:
            where = f"{path}.container.volumeMounts[{index}]"
            found.append(Problem(f"no volume is called `{mount.name}`", path=where))
    mounts = Mounts([Folder(mount.mount_path.rstrip("/") or "/", _NOWHERE, True) for mount in container.volume_mounts])
    fix = "mount a volume there: on one machine there is no image that holds it"
    if container.working_dir and "{{" not in container.working_dir and not mounts.host_path(container.working_dir):
        where = f"{path}.container.workingDir"
        found.append(Problem(f"`{container.working_dir}` is not under a volume mount", path=where, fix=fix))
    for output in template.outputs.parameters:
        where = f"{path}.outputs.parameters[{output.name}]"
        source = output.value_from.path if output.value_from else ""
        if not source:
            found.append(Problem("an output of a container comes from `valueFrom.path`", path=where))
        elif "{{" not in source and not mounts.host_path(source):
            found.append(Problem(f"`{source}` is not under a volume mount", path=where, fix=fix))
    for artifact in template.outputs.artifacts:
        where = f"{path}.outputs.artifacts[{artifact.name}]"
        if not artifact.path:
            found.append(Problem("an artifact of a container has a `path`", path=where))
        elif "{{" not in artifact.path and not mounts.host_path(artifact.path):
            found.append(Problem(f"`{artifact.path}` is not under a volume mount", path=where, fix=fix))
    if template.retry_strategy:
        found += _retry(template.retry_strategy, f"{path}.retryStrategy")
    allowed = _always(workflow) | _inputs(template) | {"pod.name", "node.name"}
    allowed |= {f"outputs.parameters.{output.name}.path" for output in template.outputs.parameters}
    allowed |= {f"outputs.artifacts.{artifact.name}.path" for artifact in template.outputs.artifacts}
    dumped = template.model_dump(by_alias=True, exclude={"inputs"})
    return found + _unknown_tags(dumped, allowed, path)


def _dag(workflow: Workflow, template: Template, path: str) -> list[Problem]:
    for field in ("retryStrategy", "timeout", "activeDeadlineSeconds"):
        if template.model_dump(by_alias=True)[field] is not None:
            return [Problem(f"`{field}` is honoured on containers alone", path=f"{path}.{field}")]
    tasks, kind = template.tasks, f"{path}.{'dag.tasks' if template.dag else 'steps'}"
    found = _unique([task.name for task in tasks], kind, "task")
    found += _depends(tasks, kind) if template.dag else []
    if found:
        return found
    graph = Graph(tasks)
    if ring := graph.cycle():
        return [Problem(f"tasks wait for each other: {' -> '.join(ring)}", path=kind)]
    for task in tasks:
        before = [other for other in tasks if other.name in graph.ancestors(task.name)]
        found += _task(workflow, template, task, before, f"{kind}[{task.name}]")
    allowed = _always(workflow) | _inputs(template) | _outputs(workflow, template, tasks)
    for output in template.outputs.parameters:
        where = f"{path}.outputs.parameters[{output.name}]"
        if not output.value_from or not output.value_from.parameter:
            found.append(Problem("an output of tasks comes from `valueFrom.parameter`", path=where))
        else:
            found += _unknown_tags(output.value_from.parameter, allowed, where)
    return found


def _depends(tasks: Sequence[Task], path: str) -> list[Problem]:
    names = {task.name: task for task in tasks}
    found = []
    both = any(task.depends for task in tasks) and any(task.dependencies for task in tasks)
    if both:
        found.append(Problem("one DAG has either `depends` or `dependencies`, not both", path=path))
    for task in tasks:
        where = f"{path}[{task.name}].{'depends' if task.depends else 'dependencies'}"
        try:
            depends = expressions.parse_depends(task.depends) if task.depends else None
        except expressions.ExpressionError as error:
            found.append(Problem(str(error), path=where, fix="as in `a && (b.Succeeded || !c.Failed)`"))
            continue
        wanted = expressions.tasks_of(depends) if depends else task.dependencies
        found += [Problem(f"no task is called `{name}`", path=where) for name in wanted if name not in names]
        for name, result in expressions.results_of(depends) if depends else ():
            if result in ("AnySucceeded", "AllFailed") and name in names and not names[name].fans_out:
                found.append(Problem(f"`{result}` is for tasks with items; `{name}` has none", path=where))
    return found


def _task(workflow: Workflow, template: Template, task: Task, before: Sequence[Task], path: str) -> list[Problem]:
    found = _called(workflow.spec, task, path)
    if task.with_items is not None and task.with_param is not None:
        found.append(Problem("a task has `withItems` or `withParam`, not both", path=path))
    if task.when:
        try:
            expressions.parse_when(TAG.sub("x", task.when))
        except expressions.ExpressionError as error:
            fix = "as in `{{tasks.a.outputs.parameters.b}} == yes`; put text with other signs in quotes"
            found.append(Problem(str(error), path=f"{path}.when", fix=fix))
    allowed = _always(workflow) | _inputs(template) | _outputs(workflow, template, before)
    items = task.fans_out
    dumped = task.model_dump(by_alias=True, exclude={"name", "template", "depends", "dependencies"})
    return found + _unknown_tags(dumped, allowed, path, items=items)


def _called(spec: Spec, task: Task, path: str) -> list[Problem]:
    called = next((template for template in spec.templates if template.name == task.template), None)
    if called is None:
        return [Problem(f"no template is called `{task.template}`", path=f"{path}.template")]
    given = {argument.name: argument for argument in task.arguments.parameters}
    wanted = {parameter.name: parameter for parameter in called.inputs.parameters}
    where = f"{path}.arguments.parameters"
    found = _unique([argument.name for argument in task.arguments.parameters], where, "parameter", _PARAMETER)
    found += [Problem(f"template `{called.name}` has no input `{n}`", path=where) for n in given if n not in wanted]
    for name, parameter in wanted.items():
        argument = given.get(name)
        if (argument is None or (argument.value is None and argument.default is None)) and (
            parameter.value is None and parameter.default is None
        ):
            found.append(Problem(f"template `{called.name}` needs the input `{name}`", path=where))
    return found


def _retry(retry: Retry, path: str) -> list[Problem]:
    found = []
    if retry.expression:
        try:
            expressions.parse_retry(TAG.sub("0", retry.expression))
        except expressions.ExpressionError as error:
            found.append(Problem(str(error), path=f"{path}.expression"))
    if retry.backoff and retry.backoff.duration == "0":
        found.append(Problem("a backoff needs a duration", path=f"{path}.backoff"))
    return found


def _template_rings(spec: Spec) -> list[Problem]:
    """Templates that call each other in a ring would never end."""
    calls = [
        Task.model_validate(
            {"name": template.name, "dependencies": sorted({task.template for task in template.tasks})}
        )
        for template in spec.templates
    ]
    ring = Graph(calls).cycle()
    return [Problem(f"templates call each other: {' -> '.join(ring)}", path="spec.templates")] if ring else []


def _failures_outside_exit(spec: Spec) -> list[Problem]:
    reached = _reached(spec, spec.entrypoint)
    return [
        Problem("{{workflow.failures}} is known to the exit handler alone", path=f"spec.templates[{index}]")
        for index, template in enumerate(spec.templates)
        if template.name in reached and "workflow.failures" in set(tags(template.model_dump()))
    ]


def _entry_inputs(spec: Spec) -> list[Problem]:
    given = {parameter.name for parameter in spec.arguments.parameters}
    return [
        Problem(f"template `{name}` needs the input `{parameter.name}`", path="spec.arguments.parameters")
        for name in filter(None, (spec.entrypoint, spec.on_exit))
        for parameter in spec.template(name).inputs.parameters
        if parameter.name not in given and parameter.value is None and parameter.default is None
    ]


def _reached(spec: Spec, start: str) -> set[str]:
    reached, queue = set(), [start]
    while queue:
        name = queue.pop()
        if name not in reached:
            reached.add(name)
            queue += [task.template for task in spec.template(name).tasks]
    return reached


def _always(workflow: Workflow) -> set[str]:
    """Tags of the workflow, which have a value everywhere."""
    spec, metadata = workflow.spec, workflow.metadata
    names = [output.global_name for t in spec.templates for output in t.outputs.parameters if output.global_name]
    return (
        _ALWAYS
        | {"workflow.failures"}
        | {f"workflow.parameters.{parameter.name}" for parameter in spec.arguments.parameters}
        | {f"workflow.labels.{name}" for name in metadata.labels}
        | {f"workflow.annotations.{name}" for name in metadata.annotations}
        | {f"workflow.outputs.parameters.{name}" for name in names}
    )


def _inputs(template: Template) -> set[str]:
    return {f"inputs.parameters.{parameter.name}" for parameter in template.inputs.parameters}


def _outputs(workflow: Workflow, template: Template, tasks: Sequence[Task]) -> set[str]:
    """Tags of the tasks that have ended by then."""
    allowed = set()
    for task in tasks:
        called = next((t for t in workflow.spec.templates if t.name == task.template), None)
        tag = f"{template.prefix}.{task.name}"
        allowed |= {f"{tag}.{name}" for name in ("id", "status", "exitCode", "startedAt", "finishedAt")}
        allowed |= {f"{tag}.outputs.result", *([f"{tag}.outputs.parameters"] if task.fans_out else [])}
        names = [output.name for output in called.outputs.parameters] if called else []
        allowed |= {f"{tag}.outputs.parameters.{name}" for name in names}
    return allowed


def _unknown_tags(value: Any, allowed: set[str], path: str, *, items: bool = False) -> list[Problem]:
    return [
        Problem(f"{{{{{tag}}}}} has no value here", path=path, fix=_hint(tag))
        for tag in dict.fromkeys(tags(value))
        if is_argo_tag(tag) and tag not in allowed and not (items and tag.startswith("item."))
    ]


def _hint(tag: str) -> str:
    if tag.startswith(("tasks.", "steps.")):
        return "name a task that this one waits for, and an output that its template declares"
    return "declare it, or correct the name"


def _expression_tags(value: Any) -> Iterator[str]:
    text = json.dumps(value, default=str)
    for match in EXPRESSION_TAG.finditer(text):
        yield text[match.start() : match.start() + 30].split("}}")[0] + "}}"


def _unique(names: Sequence[str], path: str, kind: str, pattern: re.Pattern[str] = _NAME) -> list[Problem]:
    found = [
        Problem(f"`{name}` is not a name: use letters, digits and dashes", path=path)
        for name in dict.fromkeys(names)
        if not pattern.fullmatch(name)
    ]
    twice = [name for name, count in Counter(names).items() if count > 1]
    return found + [Problem(f"more than one {kind} is called `{name}`", path=path) for name in twice]
