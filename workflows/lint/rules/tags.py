"""Simple tags, ``{{inputs.parameters.x}}``: whether each has a value where it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator

from workflows.argo import scope
from workflows.argo.document import Document, Task, Template, strings
from workflows.argo.scope import Scope
from workflows.argo.tags import TAG, is_argo_tag
from workflows.field_path import join
from workflows.lint.rules.rule import Violation
from workflows.spec.findings import unknown

_NODE = re.compile(r"(tasks|steps)\.([^.]+)\.(.+)")
_TASKS = frozenset(("dag", "steps"))
# Templates are looked at one by one; what a patch of pods or a metric may name depends on where it is used.
_NOT_OF_SPEC = frozenset(("templates", "templateDefaults", "arguments", "podSpecPatch", "metrics"))
Fault = tuple[str, Violation]


def unresolved_tag(document: Document) -> Iterator[Violation]:
    """A tag has no value where it stands: an undeclared input or workflow parameter, an item outside of a loop, a task
    that does not exist. Only tags that begin with `item.`, `steps.`, `inputs.`, `outputs.`, `pod.`, `workflow.` and
    `tasks.` are looked at; Argo leaves all others as they are.
    """
    yield from _of_kind("unresolved", document)


def missing_dependency(document: Document) -> Iterator[Violation]:
    """A task uses `{{tasks.X...}}` but does not wait for X, directly or through others; a step uses one that is
    not in an earlier group.
    """
    yield from _of_kind("dependency", document)


def unknown_output(document: Document) -> Iterator[Violation]:
    """A tag names an output that the template of that task or step does not have."""
    yield from _of_kind("output", document)


def failures_outside_exit(document: Document) -> Iterator[Violation]:
    """`{{workflow.failures}}` stands in a template that runs before the end; only the exit handler knows it."""
    known = scope.in_exit_handler(document)
    inline_known = bool(known) or document.is_template
    for template in document.templates:
        if template.name in known or (not template.name and inline_known):
            continue
        for path, text in strings(template.value, template.path, frozenset(("inline",))):
            if any(match[1] == "workflow.failures" for match in TAG.finditer(text)):
                yield Violation(
                    path, "{{workflow.failures}} is known to the exit handler alone", "move it to onExit's template"
                )


def _of_kind(kind: str, document: Document) -> Iterator[Violation]:
    around = scope.of_document(document).plus({"workflow.failures"})
    for path, text in strings(document.spec, document.path, _NOT_OF_SPEC):
        for found, hit in _faults(text, path, around.plus({"pod.name"}), None):
            if found == kind:
                yield hit
    for template in document.templates:
        for found, hit in _template(template, around):
            if found == kind:
                yield hit


def _template(template: Template, around: Scope) -> Iterator[Fault]:
    known = scope.of_template(template, around)
    for path, text in strings(template.value, template.path, _TASKS | {"outputs"}):
        yield from _faults(text, path, known, None)
    for path, text in strings(template.value.get("outputs"), join(template.path, "outputs")):
        yield from _faults(text, path, known, template if template.tasks else None)
    target = template.value.get("dag", {}).get("target") if template.type == "dag" else None
    yield from _faults(str(target or ""), f"{template.path}.dag.target", known, None)
    for task in template.tasks:
        of_task = scope.of_items(task, known)
        if task.inline:
            # Argo looks at the call with the inputs of its inline template in sight.
            of_task = of_task.plus(scope.of_template(task.inline, of_task).tags)
        for path, text in strings(task.value, task.path, frozenset(("inline", "hooks", "onExit"))):
            yield from _faults(text, path, of_task, template, task)
        for hook in task.hooks:
            for path, text in strings(hook.value, hook.path):
                yield from _faults(text, path, of_task, template, task, itself=True)


def _faults(
    text: str, path: str, known: Scope, within: Template | None, task: Task | None = None, *, itself: bool = False
) -> Iterator[Fault]:
    for tag in dict.fromkeys(match[1] for match in TAG.finditer(text)) if "{{" in text else ():
        if not is_argo_tag(tag) or known.has(tag):
            continue
        node = _NODE.fullmatch(tag)
        if node and within and node[1] == within.prefix and node[2] in within.by_name:
            yield from _node_fault(tag, node[2], node[3], path, within, task, itself)
        else:
            yield "unresolved", Violation(path, f"{{{{{tag}}}}} has no value here", _hint(tag, known, within))


def _node_fault(
    tag: str, name: str, rest: str, path: str, within: Template, task: Task | None, itself: bool
) -> Iterator[Fault]:
    """What is wrong with a tag of a task that exists."""
    other = within.by_name[name]
    names, beginnings = scope.of_task(other)
    if rest not in names and not (beginnings and rest.startswith(beginnings)):
        fix = unknown(rest, sorted(names))
        if other.called and rest.startswith("outputs."):
            fix = f"declare it in outputs of {other.called.label}" if not fix.startswith("did you") else fix
        yield "output", Violation(path, f"{{{{{tag}}}}}: `{name}` has no `{rest}`", fix)
    before = within.before(task) if task else None
    if task and before is not None and name not in before and not (itself and name == task.name):
        fix = f"add {name} to its depends or dependencies" if within.type == "dag" else "move it to a later group"
        yield "dependency", Violation(path, f"{{{{{tag}}}}}: `{task.name}` does not wait for `{name}`", fix)


def _hint(tag: str, known: Scope, within: Template | None) -> str:
    word, _, rest = tag.partition(".")
    if word in ("tasks", "steps"):
        if within is None:
            return "a leaf does not see tasks: hand the value to it as an input"
        if word != within.prefix:
            return f"in a {within.type} write {{{{{within.prefix}.{rest}}}}}"
        return unknown(rest.partition(".")[0], within.by_name)
    if word == "item":
        return "an item has a value only in a task with withItems, withParam or withSequence, and only the keys it has"
    near = unknown(tag, sorted(known.tags))
    if near.startswith("did you mean"):
        return near
    return {"inputs": "declare it among inputs", "workflow": "declare it among spec.arguments"}.get(
        word, "correct the tag"
    )
