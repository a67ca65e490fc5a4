"""Scopes of tags: the tags that have a value in a document, template or task (Argo: ``resolveAllVariables``).

Only tags that begin with a reserved word need a value; see ``tags.is_argo_tag``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from workflows.argo.document import POD_TYPES, Call, Document, Task, Template, Value, listed, section

ALWAYS = ("workflow.creationTimestamp", "workflow.scheduledTime", "workflow.duration",
          "tasks.name", "steps.name", "node.name", "outputs.")  # fmt: skip
"""Prefixes of tags that have a value everywhere at runtime."""
_WORKFLOW = ("name", "namespace", "uid", "mainEntrypoint", "serviceAccountName", "status", "labels", "labels.json",
             "annotations", "annotations.json")  # fmt: skip
_NODE_FIELDS = ("id", "startedAt", "finishedAt", "hostNodeName", "status")


@dataclass(frozen=True)
class Scope:
    """Tags that have a value, and prefixes of tags that can have one."""

    tags: frozenset[str]
    prefixes: tuple[str, ...] = ALWAYS

    def has(self, tag: str) -> bool:
        """Return True if a tag can have a value in this scope."""
        return tag in self.tags or tag.startswith(self.prefixes)

    def extend(self, tags: Iterable[str], *prefixes: str) -> Scope:
        """Return the scope with more tags and prefixes."""
        return Scope(self.tags | set(tags), self.prefixes + prefixes)


@lru_cache(maxsize=1)
def document_scope(document: Document) -> Scope:
    """Return ``{{workflow...}}``, except ``workflow.failures``."""
    specs = [document.spec, *([document.referred.spec] if document.referred else [])]
    tags = {f"workflow.{name}" for name in _WORKFLOW}
    for spec in specs:
        names = [str(value.get("name")) for _, value in listed(section(spec, "arguments"), "parameters", "")]
        tags |= {f"workflow.parameters.{name}" for name in names}
        tags |= {"workflow.parameters", "workflow.parameters.json"} if names else set()
        tags |= {"workflow.priority"} if "priority" in spec else set()
    for kind, keys in _metadata(document, specs):
        tags |= {f"workflow.{kind}.{key}" for key in keys}
    prefixes: list[str] = []
    if document.is_template or (document.reference and not document.referred):
        # A Workflow that uses the template can have additional parameters.
        prefixes.append("workflow.parameters")
    if document.reference and not document.referred:
        prefixes += ["workflow.labels.", "workflow.annotations."]
    outputs, unknown = _global_outputs(document)
    return Scope(frozenset(tags | outputs), (*ALWAYS, *prefixes, *unknown))


def template_scope(template: Template, parent: Scope) -> Scope:
    """Return ``{{inputs...}}`` and ``{{pod.name}}`` of a template."""
    tags = {f"inputs.{kind}.{name}" for kind in ("parameters", "artifacts") for name in template.names("inputs", kind)}
    tags |= {f"inputs.artifacts.{name}.path" for name in template.names("inputs", "artifacts")}
    tags.add("inputs.parameters")
    tags |= {"pod.name"} if template.type in POD_TYPES else set()
    return parent.extend(tags)


def item_scope(task: Task, parent: Scope) -> Scope:
    """Return ``{{item...}}`` of a task in a loop."""
    items = task.value.get("withItems") or []
    keys = {str(key) for item in items if isinstance(item, dict) for key in item}
    keys |= {f"[{index}]" for item in items if isinstance(item, list) for index in range(len(item))}
    # The keys of items from a tag are unknown.
    unknown = "withParam" in task.loops or any(isinstance(item, str) and "{{" in item for item in items)
    return parent.extend({f"item.{key}" for key in keys}, *(["item."] if unknown else []))


def task_suffixes(task: Task) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return what can follow ``{{tasks.NAME.``, and the prefixes that can when the called template is unknown."""
    template = task.called
    if template is None:
        return frozenset(_NODE_FIELDS), ("outputs.", "exitCode", "ip")
    names = {
        f"outputs.{kind}.{name}" for kind in ("parameters", "artifacts") for name in template.names("outputs", kind)
    }
    names |= {"outputs.parameters", "outputs.result", "exitCode"} if task.loops else set()
    names |= {"outputs.result", "exitCode"} if has_result(template) else set()
    names |= {"ip"} if template.effective("daemon") else set()
    return frozenset({*_NODE_FIELDS, *names}), ()


def has_result(template: Template) -> bool:
    """Return True if a template has an exit code and a result (Argo: ``HasOutput``)."""
    containers = listed(section(template.value, "containerSet"), "containers", "")
    return template.type in ("container", "script", "data", "http", "plugin") or any(
        value.get("name") == "main" for _, value in containers
    )


def exit_handler_templates(document: Document) -> set[str]:
    """Return the names of the templates that run only in the exit handler: they have ``workflow.failures``."""
    entrypoint, handlers = str(document.spec.get("entrypoint", "")), []
    if document.spec.get("onExit"):
        handlers.append(str(document.spec["onExit"]))
    handlers += [str(call.value.get("template", "")) for call in document.calls if _is_exit_hook(call)]
    used = _reached(document, [entrypoint])
    # Any template of a WorkflowTemplate can be an exit handler in another document.
    names = {template.name for template in document.own_templates} if document.is_template else set()
    return (names | _reached(document, handlers)) - used


def _is_exit_hook(call: Call) -> bool:
    return not isinstance(call, Task) and call.path == f"{call.document.path}.hooks.exit"


def _reached(document: Document, names: list[str]) -> set[str]:
    reached: dict[tuple[int, str], str] = {}
    queue = [template for name in names if (template := document.template(name))]
    while queue:
        template = queue.pop()
        key = (id(template.document), template.path)
        if key not in reached:
            reached[key] = template.name
            queue += [call.called for task in template.tasks for call in (task, *task.hooks) if call.called]
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
    """Return ``workflow.outputs...``, from the ``globalName`` of all templates that can run, and unknown prefixes."""
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
