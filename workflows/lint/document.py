"""An Argo document as rules look at it: templates, tasks and calls, each with its field path.

The values are plain data, checked by the schema before: what is there has the right type, but anything may be absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from workflows.argo import expressions
from workflows.argo.document import Task as GraphTask
from workflows.runner.dag import Graph
from workflows.spec.source import Source, join

Value = Mapping[str, Any]

TYPES = ("container", "containerSet", "script", "resource", "data", "http", "plugin", "suspend", "dag", "steps")
POD_TYPES = {"container", "containerSet", "script", "resource", "data"}
LEAF_TYPES = POD_TYPES | {"http", "plugin"}
LOOPS = ("withItems", "withParam", "withSequence")


@dataclass
class Library:
    """All documents that are linted together: references are looked up here."""

    documents: list[Document] = field(default_factory=list)

    def find(self, reference: Value, namespace: str) -> Document | None:
        """The document that a ``templateRef`` or ``workflowTemplateRef`` of that namespace names."""
        cluster = bool(reference.get("clusterScope"))
        kind = "ClusterWorkflowTemplate" if cluster else "WorkflowTemplate"
        for document in self.documents:
            same_place = cluster or not namespace or document.namespace in ("", namespace)
            if document.kind == kind and document.name == reference.get("name") and same_place:
                return document
        return None


@dataclass(frozen=True, eq=False)
class Document:
    """One Workflow, WorkflowTemplate, ClusterWorkflowTemplate or CronWorkflow."""

    kind: str
    value: Value
    source: Source
    library: Library
    size: int = 0
    """Bytes of the document as JSON."""

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
        """``metadata.namespace``; empty where it is left to who submits."""
        return str(self.metadata.get("namespace", ""))

    @property
    def is_template(self) -> bool:
        """Whether others refer to it, rather than that it runs."""
        return self.kind in ("WorkflowTemplate", "ClusterWorkflowTemplate")

    @property
    def path(self) -> str:
        """Path of the workflow's spec."""
        return "spec.workflowSpec" if self.kind == "CronWorkflow" else "spec"

    @property
    def spec(self) -> Value:
        """The workflow's spec: of a CronWorkflow, the inner one."""
        spec = section(self.value, "spec")
        return section(spec, "workflowSpec") if self.kind == "CronWorkflow" else spec

    @property
    def defaults(self) -> Value:
        """``templateDefaults``."""
        return section(self.spec, "templateDefaults")

    @property
    def reference(self) -> Value:
        """``workflowTemplateRef``; empty when there is none."""
        return section(self.spec, "workflowTemplateRef")

    @cached_property
    def own_templates(self) -> list[Template]:
        """``templates`` of the spec."""
        return [Template(value, path, self) for path, value in listed(self.spec, "templates", self.path)]

    @cached_property
    def templates(self) -> list[Template]:
        """All templates in it, also those inline in tasks."""
        found, todo = [], list(self.own_templates)
        while todo:
            template = todo.pop(0)
            found.append(template)
            todo += [task.inline for task in template.tasks if task.inline]
        return found

    @property
    def referred(self) -> Document | None:
        """The document behind ``workflowTemplateRef``, if it is among those given."""
        return self.library.find(self.reference, self.namespace) if self.reference else None

    def template(self, name: str) -> Template | None:
        """The template of that name: its own, else that of the WorkflowTemplate it refers to."""
        if not name:
            return None
        own = next((template for template in self.own_templates if template.name == name), None)
        referred = self.referred
        if own or referred is None or referred is self:
            return own
        return next((template for template in referred.own_templates if template.name == name), None)

    @cached_property
    def calls(self) -> list[Call]:
        """Every place that calls a template: tasks, steps, and hooks of these and of the workflow."""
        found = list(_hooks(self.spec, self.path, self))
        for template in self.templates:
            for task in template.tasks:
                found += [task, *task.hooks]
        return found


@dataclass(frozen=True, eq=False)
class Template:
    """One template of a document."""

    value: Value
    path: str
    document: Document

    @property
    def name(self) -> str:
        """Its name; empty for one that stands inline in a task."""
        return str(self.value.get("name", ""))

    @property
    def types(self) -> list[str]:
        """Which of ``container``, ``dag``... it has; exactly one is right."""
        return [name for name in TYPES if name in self.value]

    @property
    def type(self) -> str:
        """Its type; empty when there is none."""
        return next(iter(self.types), "")

    @property
    def is_leaf(self) -> bool:
        """Whether it runs something itself (Argo: ``IsLeaf``)."""
        return self.type in LEAF_TYPES

    @property
    def prefix(self) -> str:
        """How tags name its tasks."""
        return {"dag": "tasks", "steps": "steps"}.get(self.type, "")

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"template `{self.name}`" if self.name else "the inline template"

    def parts(self, part: str, kind: str) -> list[tuple[str, Value]]:
        """Path and value of each of ``inputs.parameters``, ``outputs.artifacts``..."""
        return listed(section(self.value, part), kind, join(self.path, part))

    def names(self, part: str, kind: str) -> list[str]:
        """Names of the same."""
        return [str(value.get("name", "")) for _, value in self.parts(part, kind)]

    def effective(self, name: str) -> Any:
        """A field of it, else of ``templateDefaults``."""
        return self.value.get(name, self.document.defaults.get(name))

    @cached_property
    def tasks(self) -> list[Task]:
        """Tasks of a ``dag``, or the ``steps`` of all groups."""
        if self.type == "dag":
            path = join(self.path, "dag")
            return [
                Task(value, place, self.document, self) for place, value in listed(self.value["dag"], "tasks", path)
            ]
        found = []
        for group, steps in enumerate(self.value.get("steps", []) if self.type == "steps" else []):
            path = f"{self.path}.steps[{group}]"
            found += [Task(step, join(path, index), self.document, self, group) for index, step in enumerate(steps)]
        return found

    @cached_property
    def by_name(self) -> dict[str, Task]:
        """Its tasks by their names; the first of each name."""
        found: dict[str, Task] = {}
        for task in self.tasks:
            found.setdefault(task.name, task)
        return found

    @cached_property
    def graph(self) -> Graph | None:
        """The DAG as the runner sees it; None where a ``depends`` does not parse."""
        tasks = [
            GraphTask(name=task.name, depends=task.depends, dependencies=task.dependencies) for task in self.tasks
        ]
        graph = Graph(tasks)
        try:
            return graph if graph.parents is not None else None
        except (expressions.ExpressionError, RecursionError):
            return None

    def before(self, task: Task) -> set[str] | None:
        """Names of the tasks that have ended when ``task`` starts; None where that cannot be told."""
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
        """Path and value of each container it runs: main ones, init containers and sidecars."""
        found = [(join(self.path, kind), self.value[kind]) for kind in ("container", "script") if kind in self.value]
        found += listed(section(self.value, "containerSet"), "containers", join(self.path, "containerSet"))
        for kind in ("initContainers", "sidecars"):
            found += listed(self.value, kind, self.path)
        return found


@dataclass(frozen=True, eq=False)
class Call:
    """A place that calls a template."""

    value: Value
    path: str
    document: Document

    @property
    def reference(self) -> Value:
        """``templateRef``; empty when there is none."""
        return section(self.value, "templateRef")

    @property
    def inline(self) -> Template | None:
        """The template that stands in the call itself."""
        inline = self.value.get("inline")
        return Template(inline, join(self.path, "inline"), self.document) if isinstance(inline, dict) else None

    @property
    def arguments(self) -> Value:
        """``arguments``."""
        return section(self.value, "arguments")

    @cached_property
    def called(self) -> Template | None:
        """The template that it calls; None when that is not known here."""
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

    @property
    def loops(self) -> list[str]:
        """Which of ``withItems``, ``withParam``, ``withSequence`` it has."""
        return [name for name in LOOPS if self.value.get(name) not in (None, [], "")]

    @property
    def hooks(self) -> list[Call]:
        """Its hooks, and the ``onExit`` of old."""
        return list(_hooks(self.value, self.path, self.document))


def section(value: Value, name: str) -> Value:
    """A field that is a map; empty when it is absent."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def listed(value: Value, name: str, path: str) -> list[tuple[str, Value]]:
    """Path and value of each map in a field that is a list."""
    items = value.get(name)
    items = items if isinstance(items, list) else []
    return [(join(join(path, name), index), item) for index, item in enumerate(items) if isinstance(item, dict)]


def texts(value: Any, path: str, leave: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """Path and text of every string in plain data, but for the fields named in ``leave`` at its top."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in leave:
                yield from texts(item, join(path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from texts(item, join(path, index))


def _hooks(value: Value, path: str, document: Document) -> Iterator[Call]:
    for name, hook in section(value, "hooks").items():
        if isinstance(hook, dict):
            yield Call(hook, join(join(path, "hooks"), name), document)
    if isinstance(value.get("onExit"), str) and path != document.path:
        yield Call({"template": value["onExit"]}, join(path, "onExit"), document)
