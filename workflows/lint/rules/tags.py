"""Simple tags, ``{{inputs.parameters.x}}``: each must have a value where it is used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial

from workflows.argo import scope
from workflows.argo.document import POD_TYPES, Document, Task, Template, Value, listed, section, strings
from workflows.argo.scope import Scope
from workflows.argo.tag_scanner import PLACEHOLDER, scan
from workflows.argo.tags import TAG, is_argo_tag
from workflows.field_path import join
from workflows.lint.rules.rule import Violation
from workflows.spec.findings import unknown

_NODE = re.compile(r"(tasks|steps)\.([^.]+)\.(.+)")
_TASKS = frozenset(("dag", "steps"))
# Templates are checked one by one; the scope of a pod patch or a metric depends on where it is used.
_OTHER_SCOPES = frozenset(("templates", "templateDefaults", "arguments", "podSpecPatch", "metrics"))
# Argo copies these into each pod before it substitutes the inputs of the pod's template (createWorkflowPod).
_POD_FIELDS = ("affinity", "nodeSelector", "tolerations", "volumes")
_POD_METADATA = "podMetadata"
"""Unlike the other fields of pods, Argo checks it: its tags must have a value in each template that is not a list of
tasks (ValidateWorkflow merges it into them)."""
_FAILS = re.compile(r"\.(inputs|memoize|retryStrategy|synchronization\.semaphores)\b")
"""Fields of a list of tasks with which the run fails when a tag in them has no value."""
KindAndViolation = tuple[str, Violation]


def unresolved_tag(document: Document) -> Iterator[Violation]:
    """A tag has no value where it is used: an undeclared input or workflow parameter, an item outside a loop, an
    unknown task. Only tags that begin with `item.`, `steps.`, `inputs.`, `outputs.`, `pod.`, `workflow.` and `tasks.`
    are checked; Argo does not change other text in braces.
    """
    yield from _violations("unresolved", document)


def unclosed_tag(document: Document) -> Iterator[Violation]:
    """A tag has no closing braces in its text: Argo then reads up to the next `}}` of the template."""
    yield from _violations("unclosed", document)


def pod_field_tag(document: Document) -> Iterator[Violation]:
    """A tag in a field of the workflow, such as `volumes` or `nodeSelector`, has no value in any pod. Argo checks it
    only at runtime.
    """
    known = scope.document_scope(document).extend({"workflow.failures", "pod.name"})
    for path, text in strings(document.spec, document.path, _OTHER_SCOPES.union(_POD_FIELDS, [_POD_METADATA]), "{{"):
        yield from _select("unresolved", _check_text(text, path, known, None))
    fields = [(name, document.spec[name]) for name in _POD_FIELDS if name in document.spec]
    in_any_pod = _scope_of_any_pod(document, known) if fields else known
    for name, value in fields:
        for path, text in strings(value, join(document.path, name), part="{{"):
            yield from _select("unresolved", _check_text(text, path, in_any_pod, None))


def template_field_tag(document: Document) -> Iterator[Violation]:
    """A tag in a field of a `dag` or `steps` template, such as the name of a mutex or a label, has no value. Argo does
    not check these fields and keeps the tag as text: all runs then share the mutex `{{...}}`.
    """
    yield from _violations("unchecked", document)


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
    if "workflow.failures" not in document.text:
        return
    handlers = scope.exit_handler_templates(document)
    inline_allowed = bool(handlers) or document.is_template
    for template in document.templates:
        if template.name in handlers or (not template.name and inline_allowed):
            continue
        for path, text in strings(template.value, template.path, frozenset(("inline",)), "{{"):
            if any(match[1] == "workflow.failures" for match in TAG.finditer(text)):
                yield Violation(
                    path,
                    "{{workflow.failures}} is only available in the exit handler",
                    "move it to the onExit template",
                )


def _violations(kind: str, document: Document) -> Iterator[Violation]:
    return (violation for violation_kind, violation in _all_violations(document) if violation_kind == kind)


@lru_cache(maxsize=1)
def _all_violations(document: Document) -> list[KindAndViolation]:
    """Return the violations of all rules about tags; each rule selects its own."""
    return list(_check_document(document))


def _check_document(document: Document) -> Iterator[KindAndViolation]:
    if "{{" not in document.text:
        return
    known = scope.document_scope(document).extend({"workflow.failures"})
    for path, text in used_arguments(document):
        yield from _check_text(text, path, known, None)
    for template in document.templates:
        yield from _check_template(template, known)
    yield from _check_pod_metadata(document, known)


def used_arguments(document: Document) -> Iterator[tuple[str, str]]:
    """Yield path and text of the workflow's arguments that a template uses; Argo reads the others nowhere."""
    arguments = section(document.spec, "arguments")
    entrypoint = document.template(str(document.spec.get("entrypoint", "")))
    for kind in ("parameters", "artifacts"):
        inputs = entrypoint.names("inputs", kind) if entrypoint and not document.is_template else []
        for path, value in listed(arguments, kind, join(document.path, "arguments")):
            texts = [(where, text) for where, text in _argument_texts(kind, value, path) if "{{" in text]
            if not texts:
                continue
            name = value.get("name")
            is_used = _is_used(document.templates, f"workflow.{kind}.{name}")
            if entrypoint and name in inputs:
                is_checked = kind == "artifacts" or not entrypoint.tasks
                is_used |= is_checked or _is_used([entrypoint], f"inputs.{kind}.{name}")
            if is_used:
                yield from texts


def _argument_texts(kind: str, value: Value, path: str) -> Iterator[tuple[str, str]]:
    """Yield the texts of an argument that Argo inserts: not the description, nor the default."""
    if kind == "artifacts":
        yield from strings(value, path)
        return
    for field in ("value",) if "value" in value else ("valueFrom",):
        yield from strings(value.get(field), join(path, field))


def _is_used(templates: list[Template], tag: str) -> bool:
    return any(strings(template.value, "", part=tag) for template in templates)


def _scope_of_any_pod(document: Document, known: Scope) -> Scope:
    """Return the tags that have a value in some pod. Argo inserts the outputs of tasks when the tasks are done."""
    tags, prefixes = {"pod.name"}, []
    for template in document.templates:
        if template.type in POD_TYPES:
            tags |= scope.template_scope(template, known).tags
        for task in template.tasks:
            names, unknown_names = scope.task_suffixes(task)
            tags |= {f"{template.prefix}.{task.name}.{name}" for name in names}
            prefixes += [f"{template.prefix}.{task.name}.{name}" for name in unknown_names]
    return known.extend(tags, *prefixes)


def _select(kind: str, violations: Iterator[KindAndViolation]) -> Iterator[Violation]:
    return (violation for violation_kind, violation in violations if violation_kind == kind)


def _check_template(template: Template, parent: Scope) -> Iterator[KindAndViolation]:
    known = scope.template_scope(template, parent)
    for path, text in strings(template.value, template.path, _TASKS | {"outputs"}, "{{"):
        for kind, violation in _check_text(text, path, known, None):
            is_checked = kind != "unresolved" or template.type not in _TASKS or _FAILS.match(path, len(template.path))
            yield (kind if is_checked else "unchecked"), violation
    for path, text in strings(template.value.get("outputs"), join(template.path, "outputs"), part="{{"):
        yield from _check_text(text, path, known, template if template.tasks else None)
    target = template.value.get("dag", {}).get("target") if template.type == "dag" else None
    yield from _check_text(str(target or ""), f"{template.path}.dag.target", known, None)
    for task in template.tasks:
        texts = strings(task.value, task.path, frozenset(("hooks", "onExit")), "{{")
        hook_texts = [found for hook in task.hooks for found in strings(hook.value, hook.path, part="{{")]
        if not texts and not hook_texts:
            continue
        task_scope = scope.item_scope(task, known)
        if task.inline:
            # Argo checks the inline template with the tags of its call, and only its input parameters in addition.
            names = task.inline.names("inputs", "parameters")
            task_scope = task_scope.extend(f"inputs.parameters.{name}" for name in names)
        for path, text in texts:
            yield from _check_text(text, path, task_scope, template, task)
        for path, text in hook_texts:
            yield from _check_text(text, path, task_scope, template, task, is_hook=True)


def _check_pod_metadata(document: Document, known: Scope) -> Iterator[KindAndViolation]:
    for path, text in strings(document.spec.get(_POD_METADATA), join(document.path, _POD_METADATA)):
        for template in document.templates:
            if template.tasks or template.type in _TASKS:
                continue
            if violations := list(_check_text(text, path, scope.template_scope(template, known), None)):
                for kind, violation in violations:
                    message = f"{violation.message} (template `{template.name}`)"
                    yield kind, replace(violation, message=message, fix="use tags that all templates have")
                break


def _check_text(
    text: str, path: str, known: Scope, within: Template | None, task: Task | None = None, *, is_hook: bool = False
) -> Iterator[KindAndViolation]:
    if "{{" not in text:
        return
    for scanned in dict.fromkeys(scan(text, partial(_is_inserted, known))):
        tag = scanned.name
        if not is_argo_tag(tag) or (scanned.is_closed and known.has(tag)):
            continue
        if scanned.is_composite and scanned.is_closed:
            if not _matches_any(tag, known, within):
                message = f"{{{{{tag.replace(PLACEHOLDER, '...')}}}}} has no value here"
                yield "unresolved", Violation(path, message, "correct the tag around the inner tag")
            continue
        if not scanned.is_closed:
            if tag.startswith(known.prefixes):
                continue
            message = f"the tag `{{{{{tag[:40]}` is not closed"
            yield "unclosed", Violation(path, message, "close it with }}")
            continue
        node = _NODE.fullmatch(tag)
        if node and within and node[1] == within.prefix and node[2] in within.by_name:
            yield from _check_node_tag(tag, node[2], node[3], path, within, task, is_hook)
        else:
            yield "unresolved", Violation(path, f"{{{{{tag}}}}} has no value here", _hint(tag, known, within))


def _matches_any(composite: str, known: Scope, within: Template | None) -> bool:
    """Return True if a tag with inserted values can be one of the tags that have a value."""
    tags = set(known.tags)
    for task in within.tasks if within else ():
        names, unknown_names = scope.task_suffixes(task)
        if unknown_names:
            return True
        tags |= {f"{within.prefix}.{task.name}.{name}" for name in names} if within else set()
    pattern = re.compile(".+".join(map(re.escape, composite.split(PLACEHOLDER))), re.DOTALL)
    return composite.startswith(known.prefixes) or any(map(pattern.fullmatch, tags))


def _is_inserted(known: Scope, tag: str) -> bool:
    """Return True if Argo inserts the value of a nested tag when it checks a template."""
    return tag.startswith(("workflow.", "inputs.", "pod.", "retries")) and known.has(tag)


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
