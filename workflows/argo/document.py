"""An Argo document as plain data: its templates, tasks and calls, each with its field path.

The schema has checked the values: what is present has the right type, but any field may be absent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from workflows.argo import expressions
from workflows.argo.dag import Graph
from workflows.field_path import join

Value = Mapping[str, Any]
_NOTHING: frozenset[str] = frozenset()

TYPES = ("container", "containerSet", "script", "resource", "data", "http", "plugin", "suspend", "dag", "steps")
POD_TYPES = {"container", "containerSet", "script", "resource", "data"}
LEAF_TYPES = POD_TYPES | {"http", "plugin"}
LOOPS = ("withItems", "withParam", "withSequence")


@dataclass
class Library:
    """The documents that can refer to each other."""

    documents: list[Document] = field(default_factory=list)

    def find(self, reference: Value, namespace: str) -> Document | None:
        """Return the document that a ``templateRef`` or ``workflowTemplateRef`` in a namespace refers to."""
        cluster = bool(reference.get("clusterScope"))
        kind = "ClusterWorkflowTemplate" if cluster else "WorkflowTemplate"
        for document in self.documents:
            same_namespace = cluster or not namespace or document.namespace in ("", namespace)
            if document.kind == kind and document.name == reference.get("name") and same_namespace:
                return document
        return None


@dataclass(frozen=True, eq=False)
class Document:
    """One Workflow, WorkflowTemplate, ClusterWorkflowTemplate or CronWorkflow."""

    kind: str
    value: Value
    library: Library
    runs: bool = False
    """True when a template or schedule is run as a Workflow, so that all its parameters and callers are known."""

    @cached_property
    def text(self) -> str:
        """The document as JSON: rules look in it whether there is anything to check."""
        return json.dumps(self.value, separators=(",", ":"), ensure_ascii=False, default=str)

    @property
    def metadata(self) -> Value:
        """``metadata`` of the object."""
        return section(self.value, "metadata")

    @property
    def name(self) -> str:
        """``metadata.name``."""
        return str(self.metadata.get("name", ""))

    @property
    def namespace(self) -> str:
        """``metadata.namespace``; empty when it is set on submission."""
        return str(self.metadata.get("namespace", ""))

    @property
    def is_template(self) -> bool:
        """True for a template that other documents use."""
        return self.kind in ("WorkflowTemplate", "ClusterWorkflowTemplate") and not self.runs

    @property
    def path(self) -> str:
        """Field path of ``spec``."""
        return "spec.workflowSpec" if self.kind == "CronWorkflow" else "spec"

    @cached_property
    def spec(self) -> Value:
        """The workflow's spec; the inner one of a CronWorkflow."""
        spec = section(self.value, "spec")
        return section(spec, "workflowSpec") if self.kind == "CronWorkflow" else spec

    @cached_property
    def defaults(self) -> Value:
        """``templateDefaults``."""
        return section(self.spec, "templateDefaults")

    @cached_property
    def reference(self) -> Value:
        """``workflowTemplateRef``; empty when absent."""
        return section(self.spec, "workflowTemplateRef")

    @cached_property
    def own_templates(self) -> list[Template]:
        """``templates`` of the spec."""
        return [Template(value, path, self) for path, value in listed(self.spec, "templates", self.path)]

    @cached_property
    def templates(self) -> list[Template]:
        """All templates, including those inline in tasks."""
        templates, queue = [], list(self.own_templates)
        while queue:
            template = queue.pop(0)
            templates.append(template)
            queue += [task.inline for task in template.tasks if task.inline]
        return templates

    @property
    def referred(self) -> Document | None:
        """The document that ``workflowTemplateRef`` refers to, when it is in the library."""
        return self.library.find(self.reference, self.namespace) if self.reference else None

    def template(self, name: str) -> Template | None:
        """Return a template by name: from this document, else from the WorkflowTemplate it refers to."""
        if not name:
            return None
        own = next((template for template in self.own_templates if template.name == name), None)
        referred = self.referred
        if own or referred is None or referred is self:
            return own
        return next((template for template in referred.own_templates if template.name == name), None)

    @cached_property
    def calls(self) -> list[Call]:
        """Every call of a template: tasks, steps, their hooks, and the workflow's hooks."""
        calls = list(_hooks(self.spec, self.path, self))
        for template in self.templates:
            for task in template.tasks:
                calls += [task, *task.hooks]
        return calls


@dataclass(frozen=True, eq=False)
class Template:
    """One template of a document."""

    value: Value
    path: str
    document: Document

    @property
    def name(self) -> str:
        """Its name; empty for an inline template."""
        return str(self.value.get("name", ""))

    @cached_property
    def types(self) -> list[str]:
        """The types that are set (``container``, ``dag``...); exactly one is valid."""
        return [name for name in TYPES if name in self.value]

    @cached_property
    def type(self) -> str:
        """Its type; empty when none is set."""
        return next(iter(self.types), "")

    @property
    def is_leaf(self) -> bool:
        """True for a template that runs a pod or a request (Argo: ``IsLeaf``)."""
        return self.type in LEAF_TYPES

    @property
    def prefix(self) -> str:
        """First part of tags of its tasks: ``tasks`` or ``steps``."""
        return {"dag": "tasks", "steps": "steps"}.get(self.type, "")

    @property
    def label(self) -> str:
        """Its name in messages."""
        return f"template `{self.name}`" if self.name else "the inline template"

    def parts(self, part: str, kind: str) -> list[tuple[str, Value]]:
        """Return path and value of each of ``inputs.parameters``, ``outputs.artifacts``..."""
        parts = self._parts.get((part, kind))
        if parts is None:
            parts = self._parts[part, kind] = listed(section(self.value, part), kind, join(self.path, part))
        return parts

    @cached_property
    def _parts(self) -> dict[tuple[str, str], list[tuple[str, Value]]]:
        return {}

    def names(self, part: str, kind: str) -> list[str]:
        """Return the names of the same parts."""
        return [str(value.get("name", "")) for _, value in self.parts(part, kind)]

    def effective(self, name: str) -> Any:
        """Return a field of the template, else of ``templateDefaults``."""
        return self.value.get(name, self.document.defaults.get(name))

    @cached_property
    def tasks(self) -> list[Task]:
        """Tasks of a ``dag``, or the ``steps`` of all groups."""
        if self.type == "dag":
            path = join(self.path, "dag")
            return [
                Task(value, task_path, self.document, self)
                for task_path, value in listed(self.value["dag"], "tasks", path)
            ]
        tasks = []
        for group, steps in enumerate(self.value.get("steps", []) if self.type == "steps" else []):
            path = f"{self.path}.steps[{group}]"
            tasks += [Task(step, join(path, index), self.document, self, group) for index, step in enumerate(steps)]
        return tasks

    @cached_property
    def by_name(self) -> dict[str, Task]:
        """Its tasks by name; the first of each name."""
        tasks: dict[str, Task] = {}
        for task in self.tasks:
            tasks.setdefault(task.name, task)
        return tasks

    @cached_property
    def graph(self) -> Graph[Task] | None:
        """The graph of a DAG's tasks; None when a ``depends`` does not parse."""
        graph = Graph(self.tasks)
        try:
            return graph if graph.parents is not None else None
        except (expressions.ExpressionError, RecursionError):
            return None

    def before(self, task: Task) -> set[str] | None:
        """Return the names of the tasks that have ended when ``task`` starts; None when unknown."""
        if self.type == "steps":
            return {other.name for other in self.tasks if other.group < task.group}
        if task.name not in self._before:
            graph = self.graph
            known = graph is not None and self.by_name.get(task.name) is task
            self._before[task.name] = graph.ancestors(task.name) if graph and known else None
        return self._before[task.name]

    @cached_property
    def _before(self) -> dict[str, set[str] | None]:
        return {}

    @cached_property
    def pods(self) -> list[tuple[str, Value]]:
        """Path and value of each container: main containers, init containers and sidecars."""
        pods = [(join(self.path, kind), self.value[kind]) for kind in ("container", "script") if kind in self.value]
        pods += listed(section(self.value, "containerSet"), "containers", join(self.path, "containerSet"))
        for kind in ("initContainers", "sidecars"):
            pods += listed(self.value, kind, self.path)
        return pods


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a template."""

    value: Value
    path: str
    document: Document

    @cached_property
    def reference(self) -> Value:
        """``templateRef``; empty when absent."""
        return section(self.value, "templateRef")

    @cached_property
    def inline(self) -> Template | None:
        """The inline template of the call."""
        inline = self.value.get("inline")
        return Template(inline, join(self.path, "inline"), self.document) if isinstance(inline, dict) else None

    @property
    def arguments(self) -> Value:
        """``arguments``."""
        return section(self.value, "arguments")

    @cached_property
    def called(self) -> Template | None:
        """The called template; None when it is not in the library."""
        if self.reference:
            target = self.document.library.find(self.reference, self.document.namespace)
            return target.template(str(self.reference.get("template"))) if target else None
        return self.inline or self.document.template(str(self.value.get("template", "")))


@dataclass(frozen=True, eq=False)
class Task(Call):
    """A task of a DAG, or a step."""

    within: Template
    group: int = 0

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.value.get("name", ""))

    @property
    def depends(self) -> str:
        """``depends``."""
        return str(self.value.get("depends", ""))

    @property
    def dependencies(self) -> list[str]:
        """``dependencies``."""
        return list(self.value.get("dependencies", []))

    @cached_property
    def loops(self) -> list[str]:
        """The loops that are set: ``withItems``, ``withParam``, ``withSequence``."""
        return [name for name in LOOPS if self.value.get(name) not in (None, [], "")]

    @cached_property
    def hooks(self) -> list[Call]:
        """Its hooks, including the deprecated ``onExit``."""
        return list(_hooks(self.value, self.path, self.document))


def section(value: Value, name: str) -> Value:
    """Return a field that is a mapping; empty when absent."""
    field_value = value.get(name)
    return field_value if isinstance(field_value, dict) else {}


def listed(value: Value, name: str, path: str) -> list[tuple[str, Value]]:
    """Return path and value of each mapping in a field that is a list."""
    items = value.get(name)
    if not items or not isinstance(items, list):
        return []
    path = join(path, name)
    return [(f"{path}[{index}]", item) for index, item in enumerate(items) if isinstance(item, dict)]


def strings(value: Any, path: str, omit: frozenset[str] = frozenset(), part: str = "") -> list[tuple[str, str]]:
    """Return path and value of each string with ``part`` in plain data, except in the top-level fields ``omit``."""
    found: list[tuple[str, str]] = []
    _collect(value, path, omit, part, found)
    return found


def _collect(value: Any, path: str, omit: frozenset[str], part: str, found: list[tuple[str, str]]) -> None:
    if isinstance(value, str):
        if part in value:
            found.append((path, value))
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in omit and (part in item if isinstance(item, str) else isinstance(item, dict | list)):
                _collect(item, join(path, key), _NOTHING, part, found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if part in item if isinstance(item, str) else isinstance(item, dict | list):
                _collect(item, join(path, index), _NOTHING, part, found)


def _hooks(value: Value, path: str, document: Document) -> Iterator[Call]:
    for name, hook in section(value, "hooks").items():
        if isinstance(hook, dict):
            yield Call(hook, join(join(path, "hooks"), name), document)
    if isinstance(value.get("onExit"), str) and path != document.path:
        yield Call({"template": value["onExit"]}, join(path, "onExit"), document)
