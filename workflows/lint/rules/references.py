"""The entrypoint of a document and its calls of templates, in the same and in other documents."""

from __future__ import annotations

from collections.abc import Iterator

from workflows.argo.artifact import has_location
from workflows.argo.document import Call, Document, Task, Template, Value, listed, section
from workflows.argo.tags import TAG, tags
from workflows.field_path import join
from workflows.lint.rules.checked_values import ONLY_AT_RUNTIME, checked_text, is_known
from workflows.lint.rules.rule import Violation
from workflows.spec.findings import unknown

_SOURCES = {"value", "configMapKeyRef", "event", "supplied"}
"""Sources of an argument."""


def entrypoint(document: Document) -> Iterator[Violation]:
    """`entrypoint` is missing in a document that runs, or refers to an unknown template."""
    name, path = str(document.spec.get("entrypoint", "")), join(document.path, "entrypoint")
    if name:
        yield from _undefined(document, name, path)
    elif not document.is_template and not document.reference:
        yield Violation(path, "entrypoint is required", "add entrypoint: NAME")
    elif document.referred and not document.referred.spec.get("entrypoint"):
        yield Violation(
            path,
            f"neither the document nor `{document.reference.get('name')}` has an entrypoint",
            "add entrypoint: NAME",
        )


def on_exit(document: Document) -> Iterator[Violation]:
    """`onExit` of the workflow refers to an unknown template."""
    name = str(document.spec.get("onExit", ""))
    if name:
        yield from _undefined(document, name, join(document.path, "onExit"))


def templates_beside_reference(document: Document) -> Iterator[Violation]:
    """A workflow has both `workflowTemplateRef` and `templates`, which Argo rejects."""
    if document.reference and document.own_templates:
        fix = "move them to the WorkflowTemplate, or remove workflowTemplateRef"
        yield Violation(
            join(document.path, "templates"), "`templates` cannot be combined with `workflowTemplateRef`", fix
        )


def template_reference(document: Document) -> Iterator[Violation]:
    """A task, step or hook calls an unknown template, or does not have exactly one of `template`, `templateRef` and
    `inline`; or `workflowTemplateRef` has no name.
    """
    if "workflowTemplateRef" in document.spec and not document.reference.get("name"):
        yield Violation(join(document.path, "workflowTemplateRef"), "the workflowTemplateRef has no name", "add name")
    for call in document.calls:
        targets = [name for name in ("template", "templateRef", "inline") if call.value.get(name) not in (None, "")]
        name, reference = str(call.value.get("template", "")), call.reference
        if len(targets) != 1:
            message = " cannot be combined with ".join(targets) or "no template to call"
            yield Violation(call.path, message, "set exactly one of template, templateRef, inline")
        elif name:
            path = call.path if call.path.endswith(".onExit") else join(call.path, "template")
            yield from _undefined(document, name, path, call.within if isinstance(call, Task) else None)
        elif reference and (checked := _checked_reference(call)):
            yield from _undefined_reference(document, checked, join(call.path, "templateRef"))


def outside_reference(document: Document) -> Iterator[Violation]:
    """A `templateRef` or `workflowTemplateRef` refers to a document that is not in the files, so that its content was
    not checked (an error with `--strict-refs`).
    """
    references = [(join(call.path, "templateRef"), _checked_reference(call)) for call in document.calls]
    references.append((join(document.path, "workflowTemplateRef"), document.reference))
    for path, reference in references:
        name = str(reference.get("name", ""))
        # Argo inserts no values into workflowTemplateRef.
        is_open = reference is not document.reference and (TAG.search(name) or ONLY_AT_RUNTIME in name)
        if name and not is_open and document.library.find(reference, document.namespace) is None:
            kind = "ClusterWorkflowTemplate" if reference.get("clusterScope") else "WorkflowTemplate"
            yield Violation(path, f"{kind} `{name}` is not in the files", "add its file")


def missing_input(document: Document) -> Iterator[Violation]:
    """A call omits an input parameter without default, or a required input artifact; also the calls of `entrypoint`
    and `onExit`, whose arguments are those of the workflow.
    """
    for call in document.calls:
        if call.called:
            # The rule argument-value reports arguments without value.
            parameters = [
                value if _SOURCES & {*value, *section(value, "valueFrom")} else {**value, "value": ""}
                for _, value in listed(call.arguments, "parameters", "")
            ]
            yield from _missing(
                call.called, {**call.arguments, "parameters": parameters}, join(call.path, "arguments")
            )
    specs = [document.spec, *([document.referred.spec] if document.referred else [])]
    for field in ("entrypoint", "onExit"):
        name = next((str(spec[field]) for spec in specs if spec.get(field)), "")
        template = document.template(name)
        if template and (field == "onExit" or not document.is_template):
            arguments = _merge_arguments(specs if field == "entrypoint" else specs[:1])
            yield from _missing(template, arguments, join(document.path, "arguments"))


def unknown_input(document: Document) -> Iterator[Violation]:
    """A call has an argument that the called template does not declare: Argo ignores it silently."""
    for call in document.calls:
        for kind in ("parameters", "artifacts") if call.called else ():
            known = call.called.names("inputs", kind) if call.called else []
            for path, value in listed(call.arguments, kind, join(call.path, "arguments")):
                name = str(value.get("name", ""))
                if name and name not in known and call.called:
                    fix = unknown(name, known) if known else f"remove it, or declare it in {call.called.label}"
                    yield Violation(join(path, "name"), f"{call.called.label} has no input `{name}`", fix)


def endless_recursion(document: Document) -> Iterator[Violation]:
    """Templates call each other recursively without a `when`, so that the recursion never ends."""
    seen: set[str] = set()
    for template in document.own_templates:
        cycle = _call_cycle(template, seen)
        if cycle:
            names = " -> ".join(cycle)
            yield Violation(template.path, f"endless recursion: {names}", "add a `when` to one of the calls")


def _undefined(document: Document, name: str, path: str, within: Template | None = None) -> Iterator[Violation]:
    checked = checked_text(document, within, name) if within and "{{" in name else name
    if checked is None or document.template(name := checked):
        return
    if document.is_template and "{{workflow.parameters." in name:
        return
    if document.reference and document.referred is None:
        return
    names = [template.name for template in (document.referred or document).own_templates]
    yield Violation(path, f"unknown template `{name}`", unknown(name, names) if names else "add it to templates")


def _checked_reference(call: Call) -> Value:
    """Return the ``templateRef`` of a call with the values that Argo inserts when it checks the call; empty if it
    has an expression that is not supported.
    """
    if not isinstance(call, Task) or not any("{{" in str(call.reference.get(key)) for key in ("name", "template")):
        return call.reference
    checked = dict(call.reference)
    for key in ("name", "template"):
        value = checked_text(call.document, call.within, str(call.reference.get(key, "")))
        if value is None:
            return {}
        if key == "name" and any(is_known(call.document, call.within, tag) for tag in tags(value)):
            value = ONLY_AT_RUNTIME
        checked[key] = value
    return checked


def _undefined_reference(document: Document, reference: Value, path: str) -> Iterator[Violation]:
    name, template = str(reference.get("name", "")), str(reference.get("template", ""))
    for field, value in (("name", name), ("template", template)):
        if not value:
            yield Violation(path, f"the templateRef has no {field}", f"add {field}")
    if ONLY_AT_RUNTIME in name:
        yield Violation(join(path, "name"), f"the name is {ONLY_AT_RUNTIME}", "write the name without a tag")
    target = document.library.find(reference, document.namespace)
    is_open = TAG.search(template) or ONLY_AT_RUNTIME in template
    if target and template and not is_open and target.template(template) is None:
        names = [each.name for each in target.own_templates]
        yield Violation(join(path, "template"), f"`{name}` has no template `{template}`", unknown(template, names))


def _merge_arguments(specs: list[Value]) -> Value:
    """Return the arguments of a workflow, else those of the template that it refers to."""
    merged: dict[str, dict[str, Value]] = {"parameters": {}, "artifacts": {}}
    for spec in specs:
        for kind, values in merged.items():
            for _, value in listed(section(spec, "arguments"), kind, ""):
                name = str(value.get("name"))
                # The workflow's parameter without value takes the value of the template's.
                values[name] = {**value, **values.get(name, {})}
    return {kind: list(values.values()) for kind, values in merged.items()}


def _missing(template: Template, arguments: Value, path: str) -> Iterator[Violation]:
    passed = {
        kind: {str(value.get("name")): value for _, value in listed(arguments, kind, "")}
        for kind in ("parameters", "artifacts")
    }
    for _, parameter in template.parts("inputs", "parameters"):
        name = str(parameter.get("name", ""))
        source = passed["parameters"].get(name, parameter)
        has_value = "value" in source or "configMapKeyRef" in section(source, "valueFrom")
        if name not in passed["parameters"]:
            has_value = has_value or "default" in source
        if name and not has_value:
            yield Violation(
                path, f"{template.label} requires the input `{name}`", f"pass parameter {name}, or add a default"
            )
    for _, artifact in template.parts("inputs", "artifacts"):
        name = str(artifact.get("name", ""))
        if name and not artifact.get("optional") and not has_location(artifact) and name not in passed["artifacts"]:
            yield Violation(
                path, f"{template.label} requires the artifact `{name}`", f"pass artifact {name}, or make it optional"
            )


def _call_cycle(start: Template, seen: set[str]) -> list[str]:
    """Return the names on a path of unconditional calls from a template to itself; each cycle only once."""
    queue: list[tuple[Template, list[str]]] = [(start, [start.name])]
    visited: set[str] = set()
    while queue:
        template, path = queue.pop()
        for task in template.tasks:
            called = _always_called(task)
            if called is None or called.document is not start.document:
                continue
            if called.name == start.name and called.name and start.name not in seen:
                seen.update(path)
                return [*path, start.name]
            if called.name not in visited:
                visited.add(called.name)
                queue.append((called, [*path, called.name]))
    return []


def _always_called(task: Call) -> Template | None:
    return None if {"when", "withParam", "depends"} & set(task.value) else task.called
