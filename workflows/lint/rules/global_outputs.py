"""Tags of the workflow in the order in which Argo checks templates: from the entrypoint, then the exit handler.

A global output (``globalName``) exists for the templates that Argo checks after the one that has it, and a template of
another document is checked with the parameters and labels of the workflow that calls it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from workflows.argo import scope
from workflows.argo.document import Document, Task, Template, strings
from workflows.argo.tag_scanner import scan
from workflows.field_path import join
from workflows.lint.rules.rule import Violation

_WORKFLOW_WORDS = ("workflow.parameters.", "workflow.labels.", "workflow.annotations.")
_OUTPUTS = "workflow.outputs."


def global_output_order(document: Document) -> Iterator[Violation]:
    """`{{workflow.outputs...}}` is used before the task that has the output with this `globalName`."""
    yield from _select("order", document)


def library_tag(document: Document) -> Iterator[Violation]:
    """A called template of another document uses `{{workflow.parameters...}}`, labels or annotations that this
    workflow does not have.
    """
    yield from _select("library", document)


def _select(kind: str, document: Document) -> Iterator[Violation]:
    return (violation for violation_kind, violation in _visit_all(document) if violation_kind == kind)


@lru_cache(maxsize=1)
def _visit_all(document: Document) -> list[tuple[str, Violation]]:
    others = document.reference or any(call.reference for call in document.calls)
    if not others and _OUTPUTS not in document.text:
        return []
    return _Walk(document).violations()


class _Walk:
    """The visit of all templates in Argo's order."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.scope = scope.document_scope(document)
        self.outputs: set[str] = set()
        """Tags of the global outputs so far."""
        self.is_unknown = False
        """True after a call whose template is not in the files, or a global output with a tag in its name."""
        self.seen: set[tuple[int, str]] = set()
        self.found: list[tuple[str, Violation]] = []

    def violations(self) -> list[tuple[str, Violation]]:
        """Return the violations with their kinds."""
        document = self.document
        if document.reference and document.referred is None:
            return []
        specs = [document.spec, *([document.referred.spec] if document.referred else [])]
        path = join(document.path, "workflowTemplateRef")
        for field in ("entrypoint", "onExit"):
            name = next((str(spec[field]) for spec in specs if spec.get(field)), "")
            self.visit(document.template(name), path)
        for template in (document.referred or document).own_templates:
            self.visit(template, path)
        return list(dict.fromkeys(self.found))

    def visit(self, template: Template | None, call_path: str) -> None:
        """Check a template and those that it calls; once each."""
        if template is None or (id(template.document), template.path) in self.seen:
            return
        self.seen.add((id(template.document), template.path))
        tasks = self.sorted_tasks(template)
        own = template.document is self.document
        for task in tasks:
            self.visit(task.called, join(task.path, "templateRef") if own and task.reference else call_path)
            if template.type == "steps":
                self.check(task.value, task.path, template, call_path)
            self.add_outputs(task)
        if template.type == "dag":
            for task in tasks:
                self.check(task.value, task.path, template, call_path)
        inner = {key: value for key, value in template.value.items() if key not in ("dag", "steps")}
        if template.document is not self.document:
            # The arguments of the call replace the values of the inputs.
            inner["inputs"] = {"artifacts": template.value.get("inputs", {}).get("artifacts")}
        self.check(inner, template.path, template, call_path)

    def sorted_tasks(self, template: Template) -> list[Task]:
        """Return the tasks in the order of their dependencies."""
        if template.type != "dag" or template.graph is None:
            return template.tasks
        depth = {task.name: len(template.before(task) or ()) for task in template.tasks}
        return sorted(template.tasks, key=lambda task: depth[task.name])

    def add_outputs(self, task: Task) -> None:
        """Add the global outputs of a task."""
        if task.called is None:
            self.is_unknown = True
            return
        for kind in ("parameters", "artifacts"):
            for _, output in task.called.parts("outputs", kind):
                name = str(output.get("globalName", ""))
                self.is_unknown |= "{{" in name
                self.outputs.add(f"{_OUTPUTS}{kind}.{name}")

    def check(self, value: Any, path: str, template: Template, call_path: str) -> None:
        """Check the tags of a value of a template."""
        own = template.document is self.document
        for where, text in strings(value, path, part="workflow."):
            for scanned in scan(text, lambda _: False):
                tag = scanned.name
                if tag.startswith(_OUTPUTS) and tag not in self.outputs and not self.is_unknown:
                    if own and not self.scope.has(tag):
                        continue  # The rule unresolved-tag reports it.
                    message = f"{{{{{tag}}}}} is used before the task that has this output"
                    fix = "use it in a later step or task, or pass {{tasks.X.outputs...}}"
                    self.found.append(("order", Violation(where if own else call_path, message, fix)))
                elif not own and tag.startswith(_WORKFLOW_WORDS) and not self.scope.has(tag):
                    message = (
                        f"{template.label} of `{template.document.name}` uses {{{{{tag}}}}}, which has no value here"
                    )
                    fix = "add it to this workflow, or pass it as an argument"
                    self.found.append(("library", Violation(call_path, message, fix)))
