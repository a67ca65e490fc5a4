"""Simple tags, ``{{inputs.parameters.x}}``: each must have a value where it is used."""

from __future__ import annotations

import re
from collections.abc import Iterator

from workflows.argo import scope
from workflows.argo.document import POD_TYPES, Document, Task, Template, strings
from workflows.argo.scope import Scope
from workflows.argo.tags import TAG, is_argo_tag
from workflows.field_path import join
from workflows.lint.rules.rule import Violation
from workflows.spec.findings import unknown

_NODE = re.compile(r"(tasks|steps)\.([^.]+)\.(.+)")
_TASKS = frozenset(("dag", "steps"))
# Templates are checked one by one; the scope of a pod patch or a metric depends on where it is used.
_OTHER_SCOPES = frozenset(("templates", "templateDefaults", "arguments", "podSpecPatch", "metrics"))
# Argo copies these into each pod before it substitutes the inputs of the pod's template (createWorkflowPod).
_POD_FIELDS = ("affinity", "nodeSelector", "podMetadata", "tolerations", "volumes")
KindAndViolation = tuple[str, Violation]


def unresolved_tag(document: Document) -> Iterator[Violation]:
    """A tag has no value where it is used: an undeclared input or workflow parameter, an item outside a loop, an
    unknown task. Only tags that begin with `item.`, `steps.`, `inputs.`, `outputs.`, `pod.`, `workflow.` and `tasks.`
    are checked; Argo does not change other text in braces.
    """
    yield from _violations("unresolved", document)


def missing_dependency(document: Document) -> Iterator[Violation]:
    """A task uses `{{tasks.X...}}` but does not depend on X, directly or through other tasks; a step uses a step that
    is not in an earlier group.
    """
    yield from _violations("dependency", document)


def unknown_output(document: Document) -> Iterator[Violation]:
    """A tag refers to an output that the template of the task or step does not have."""
    yield from _violations("output", document)


def failures_outside_exit(document: Document) -> Iterator[Violation]:
    """`{{workflow.failures}}` is used in a template that runs before the end; only the exit handler has it."""
    handlers = scope.exit_handler_templates(document)
    inline_allowed = bool(handlers) or document.is_template
    for template in document.templates:
        if template.name in handlers or (not template.name and inline_allowed):
            continue
        for path, text in strings(template.value, template.path, frozenset(("inline",))):
            if any(match[1] == "workflow.failures" for match in TAG.finditer(text)):
                yield Violation(
                    path,
                    "{{workflow.failures}} is only available in the exit handler",
                    "move it to the onExit template",
                )


def _violations(kind: str, document: Document) -> Iterator[Violation]:
    known = scope.document_scope(document).extend({"workflow.failures"})
    for path, text in strings(document.spec, document.path, _OTHER_SCOPES.union(_POD_FIELDS)):
        yield from _select(kind, _check_text(text, path, known.extend({"pod.name"}), None))
    pods = [template for template in document.templates if template.type in POD_TYPES]
    in_any_pod = known.extend({"pod.name"}.union(*(scope.template_scope(pod, known).tags for pod in pods)))
    for name in _POD_FIELDS:
        for path, text in strings(document.spec.get(name), join(document.path, name)):
            yield from _select(kind, _check_text(text, path, in_any_pod, None))
    for template in document.templates:
        yield from _select(kind, _check_template(template, known))


def _select(kind: str, violations: Iterator[KindAndViolation]) -> Iterator[Violation]:
    return (violation for violation_kind, violation in violations if violation_kind == kind)


def _check_template(template: Template, parent: Scope) -> Iterator[KindAndViolation]:
    known = scope.template_scope(template, parent)
    for path, text in strings(template.value, template.path, _TASKS | {"outputs"}):
        yield from _check_text(text, path, known, None)
    for path, text in strings(template.value.get("outputs"), join(template.path, "outputs")):
        yield from _check_text(text, path, known, template if template.tasks else None)
    target = template.value.get("dag", {}).get("target") if template.type == "dag" else None
    yield from _check_text(str(target or ""), f"{template.path}.dag.target", known, None)
    for task in template.tasks:
        task_scope = scope.item_scope(task, known)
        if task.inline:
            # Argo checks the call with the inputs of its inline template in scope.
            task_scope = task_scope.extend(scope.template_scope(task.inline, task_scope).tags)
        for path, text in strings(task.value, task.path, frozenset(("inline", "hooks", "onExit"))):
            yield from _check_text(text, path, task_scope, template, task)
        for hook in task.hooks:
            for path, text in strings(hook.value, hook.path):
                yield from _check_text(text, path, task_scope, template, task, is_hook=True)


def _check_text(
    text: str, path: str, known: Scope, within: Template | None, task: Task | None = None, *, is_hook: bool = False
) -> Iterator[KindAndViolation]:
    for tag in dict.fromkeys(match[1] for match in TAG.finditer(text)) if "{{" in text else ():
        if not is_argo_tag(tag) or known.has(tag):
            continue
        node = _NODE.fullmatch(tag)
        if node and within and node[1] == within.prefix and node[2] in within.by_name:
            yield from _check_node_tag(tag, node[2], node[3], path, within, task, is_hook)
        else:
            yield "unresolved", Violation(path, f"{{{{{tag}}}}} has no value here", _hint(tag, known, within))


def _check_node_tag(
    tag: str, name: str, rest: str, path: str, within: Template, task: Task | None, is_hook: bool
) -> Iterator[KindAndViolation]:
    """Check a tag of a task that exists."""
    other = within.by_name[name]
    names, prefixes = scope.task_suffixes(other)
    if rest not in names and not (prefixes and rest.startswith(prefixes)):
        fix = unknown(rest, sorted(names))
        if other.called and rest.startswith("outputs."):
            fix = f"declare it in the outputs of {other.called.label}" if not fix.startswith("did you") else fix
        yield "output", Violation(path, f"{{{{{tag}}}}}: `{name}` has no `{rest}`", fix)
    before = within.before(task) if task else None
    if task and before is not None and name not in before and not (is_hook and name == task.name):
        fix = f"add {name} to its depends or dependencies" if within.type == "dag" else "move it to a later group"
        yield "dependency", Violation(path, f"{{{{{tag}}}}}: `{task.name}` does not depend on `{name}`", fix)


def _hint(tag: str, known: Scope, within: Template | None) -> str:
    word, _, rest = tag.partition(".")
    if word in ("tasks", "steps"):
        if within is None:
            return "pass the value as an input: a leaf template has no access to tasks"
        if word != within.prefix:
            return f"use {{{{{within.prefix}.{rest}}}}}"
        return unknown(rest.partition(".")[0], within.by_name)
    if word == "item":
        return "use item only in a task with withItems, withParam or withSequence, and only its keys"
    near = unknown(tag, sorted(known.tags))
    if near.startswith("did you mean"):
        return near
    return {"inputs": "declare it in inputs", "workflow": "declare it in spec.arguments"}.get(word, "correct the tag")
