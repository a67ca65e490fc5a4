"""Which tags have a value where (Argo: ``resolveAllVariables`` and what fills its scope).

Only tags that begin with one of seven words are Argo's; see ``substitute.is_argo_tag``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from workflows.argo.document import POD_TYPES, Call, Document, Task, Template, Value, listed, section

ALWAYS = ("workflow.creationTimestamp", "workflow.scheduledTime", "workflow.duration",
          "tasks.name", "steps.name", "node.name", "outputs.")  # fmt: skip
"""Beginnings that pass everywhere: they are known when it runs."""
_WORKFLOW = ("name", "namespace", "uid", "mainEntrypoint", "serviceAccountName", "status", "labels", "labels.json",
             "annotations", "annotations.json")  # fmt: skip
_OF_NODES = ("id", "startedAt", "finishedAt", "hostNodeName", "status")


@dataclass(frozen=True)
class Scope:
    """Tags that have a value, and beginnings of tags that may have one."""

    tags: frozenset[str]
    beginnings: tuple[str, ...] = ALWAYS

    def has(self, tag: str) -> bool:
        """Whether a tag may have a value here."""
        return tag in self.tags or tag.startswith(self.beginnings)

    def plus(self, tags: Iterable[str], *beginnings: str) -> Scope:
        """A wider scope."""
        return Scope(self.tags | set(tags), self.beginnings + beginnings)


def of_document(document: Document) -> Scope:
    """``{{workflow...}}``, but for ``workflow.failures``."""
    specs = [document.spec, *([document.referred.spec] if document.referred else [])]
    tags = {f"workflow.{name}" for name in _WORKFLOW}
    for spec in specs:
        names = [str(value.get("name")) for _, value in listed(section(spec, "arguments"), "parameters", "")]
        tags |= {f"workflow.parameters.{name}" for name in names}
        tags |= {"workflow.parameters", "workflow.parameters.json"} if names else set()
        tags |= {"workflow.priority"} if "priority" in spec else set()
    for kind, keys in _metadata(document, specs):
        tags |= {f"workflow.{kind}.{key}" for key in keys}
    beginnings: list[str] = []
    if document.is_template or (document.reference and not document.referred):
        # A Workflow that uses it may bring parameters of its own.
        beginnings.append("workflow.parameters")
    if document.reference and not document.referred:
        beginnings += ["workflow.labels.", "workflow.annotations."]
    outputs, unknown = _global_outputs(document)
    return Scope(frozenset(tags | outputs), (*ALWAYS, *beginnings, *unknown))


def of_template(template: Template, around: Scope) -> Scope:
    """What a template knows of itself."""
    tags = {f"inputs.{kind}.{name}" for kind in ("parameters", "artifacts") for name in template.names("inputs", kind)}
    tags |= {f"inputs.artifacts.{name}.path" for name in template.names("inputs", "artifacts")}
    tags |= {"inputs.parameters"} if template.names("inputs", "parameters") else set()
    tags |= {"pod.name"} if template.type in POD_TYPES else set()
    return around.plus(tags)


def of_items(task: Task, around: Scope) -> Scope:
    """``{{item...}}`` of a task in a loop."""
    items = task.value.get("withItems") or []
    keys = {str(key) for item in items if isinstance(item, dict) for key in item}
    keys |= {f"[{index}]" for item in items if isinstance(item, list) for index in range(len(item))}
    # What a list holds that is read from a tag is not known.
    unknown = "withParam" in task.loops or any(isinstance(item, str) and "{{" in item for item in items)
    return around.plus({f"item.{key}" for key in keys}, *(["item."] if unknown else []))


def of_task(task: Task) -> tuple[frozenset[str], tuple[str, ...]]:
    """What may follow ``{{tasks.NAME.``, and what it may begin with where the called template is not known."""
    template = task.called
    if template is None:
        return frozenset(_OF_NODES), ("outputs.", "exitCode", "ip")
    names = {
        f"outputs.{kind}.{name}" for kind in ("parameters", "artifacts") for name in template.names("outputs", kind)
    }
    names |= {"outputs.parameters", "outputs.result", "exitCode"} if task.loops else set()
    names |= {"outputs.result", "exitCode"} if has_result(template) else set()
    names |= {"ip"} if template.effective("daemon") else set()
    return frozenset({*_OF_NODES, *names}), ()


def has_result(template: Template) -> bool:
    """Whether it has an exit code and a result (Argo: ``HasOutput``)."""
    containers = listed(section(template.value, "containerSet"), "containers", "")
    return template.type in ("container", "script", "data", "http", "plugin") or any(
        value.get("name") == "main" for _, value in containers
    )


def in_exit_handler(document: Document) -> set[str]:
    """Names of the templates that run only when the workflow has ended; they know ``workflow.failures``."""
    entry, ends = str(document.spec.get("entrypoint", "")), []
    if document.spec.get("onExit"):
        ends.append(str(document.spec["onExit"]))
    ends += [str(call.value.get("template", "")) for call in document.calls if _is_exit_hook(call)]
    used = _reached(document, [entry])
    # Of a library, nobody knows here which template is an exit handler elsewhere.
    names = {template.name for template in document.own_templates} if document.is_template else set()
    return (names | _reached(document, ends)) - used


def _is_exit_hook(call: Call) -> bool:
    return not isinstance(call, Task) and call.path == f"{call.document.path}.hooks.exit"


def _reached(document: Document, names: list[str]) -> set[str]:
    reached: dict[tuple[int, str], str] = {}
    todo = [template for name in names if (template := document.template(name))]
    while todo:
        template = todo.pop()
        place = (id(template.document), template.path)
        if place not in reached:
            reached[place] = template.name
            todo += [call.called for task in template.tasks for call in (task, *task.hooks) if call.called]
    return {name for (owner, _), name in reached.items() if name and owner == id(document)}


def _metadata(document: Document, specs: list[Value]) -> Iterable[tuple[str, set[str]]]:
    sources = [section(spec, "workflowMetadata") for spec in specs]
    if document.kind == "CronWorkflow":
        sources.append(section(section(document.value, "spec"), "workflowMetadata"))
        yield "labels", {"workflows.argoproj.io/cron-workflow"}
        yield "annotations", {"workflows.argoproj.io/scheduled-time"}
    else:
        sources.append(document.metadata)
    for source in sources:
        yield "labels", {*section(source, "labels"), *section(source, "labelsFrom")}
        yield "annotations", set(section(source, "annotations"))


def _global_outputs(document: Document) -> tuple[set[str], list[str]]:
    """``workflow.outputs...`` of the ``globalName`` of any template that may have run."""
    tags, unknown = set(), []
    templates = {id(template): template for template in document.templates}
    for call in document.calls:
        if call.called:
            templates[id(call.called)] = call.called
        elif call.reference:
            unknown.append("workflow.outputs.")
    for template in templates.values():
        for kind in ("parameters", "artifacts"):
            for _, output in template.parts("outputs", kind):
                name = str(output.get("globalName", ""))
                tags |= {f"workflow.outputs.{kind}.{name}"} if name else set()
                unknown += [f"workflow.outputs.{kind}."] if "{{" in name else []
    return tags, sorted(set(unknown))
