"""Fan-out and mutexes."""

from __future__ import annotations

from collections.abc import Iterator

from workflows.argo.document import Document, Template, Value, listed, section
from workflows.field_path import join
from workflows.lint.rules.rule import Violation


def unbounded_fan_out(document: Document) -> Iterator[Violation]:
    """`withParam` takes its list from a tag, and neither the template nor the workflow has `parallelism`: one long
    list starts all its pods at the same time.
    """
    if document.spec.get("parallelism"):
        return
    for template in document.templates:
        for task in template.tasks:
            if "{{" in str(task.value.get("withParam", "")) and not template.effective("parallelism"):
                fix = "add parallelism to the template or to spec"
                yield Violation(join(task.path, "withParam"), "the number of items has no limit", fix)


def mutex_deadlock(document: Document) -> Iterator[Violation]:
    """A template takes a mutex that the workflow or a template that calls it already has: the run waits for itself."""
    for name in _mutexes(document.spec):
        for template in document.own_templates:
            if name in _mutexes(template.value):
                yield _deadlock(template, name, "the workflow")
    for template in document.own_templates:
        names = _mutexes(template.value)
        for inner in _called(template) if names else ():
            for name in names & _mutexes(inner.value):
                yield _deadlock(inner if inner.document is document else template, name, template.label)


def _deadlock(template: Template, name: str, owner: str) -> Violation:
    path = join(template.path, "synchronization.mutexes")
    return Violation(path, f"mutex `{name}` is already held by {owner}", "use another name, or only one of the two")


def _mutexes(value: Value) -> set[str]:
    mutexes = listed(section(value, "synchronization"), "mutexes", "")
    return {str(mutex.get("name")) for _, mutex in mutexes if "{{" not in str(mutex.get("name"))}


def _called(template: Template) -> Iterator[Template]:
    """Yield the templates that a template calls, directly or through others; not itself."""
    seen, queue = {id(template.value)}, [template]
    while queue:
        for task in queue.pop().tasks:
            if task.called and id(task.called.value) not in seen:
                seen.add(id(task.called.value))
                queue.append(task.called)
                yield task.called
