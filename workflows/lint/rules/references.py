"""Where a document begins and what it calls: templates of its own, and of other documents."""

from __future__ import annotations

from collections.abc import Iterator

from workflows.argo.document import Call, Document, Template, Value, listed, section
from workflows.field_path import join
from workflows.lint.rules.rule import Violation
from workflows.spec.findings import unknown


def entrypoint(document: Document) -> Iterator[Violation]:
    """`entrypoint` is missing from what is to run, or names no template."""
    name, path = str(document.spec.get("entrypoint", "")), join(document.path, "entrypoint")
    if name:
        yield from _undefined(document, name, path)
    elif not document.is_template and not document.reference:
        yield Violation(path, "no entrypoint: Argo does not know which template to begin with", "add entrypoint: NAME")
    elif document.referred and not document.referred.spec.get("entrypoint"):
        yield Violation(
            path, f"neither this nor `{document.reference.get('name')}` has an entrypoint", "add entrypoint: NAME"
        )


def on_exit(document: Document) -> Iterator[Violation]:
    """`onExit` of the workflow names no template."""
    name = str(document.spec.get("onExit", ""))
    if name:
        yield from _undefined(document, name, join(document.path, "onExit"))


def templates_beside_reference(document: Document) -> Iterator[Violation]:
    """A workflow has `workflowTemplateRef` and `templates` of its own, which Argo refuses."""
    if document.reference and document.own_templates:
        fix = "move them to the WorkflowTemplate, or drop workflowTemplateRef"
        yield Violation(join(document.path, "templates"), "`templates` can't stand beside `workflowTemplateRef`", fix)


def template_reference(document: Document) -> Iterator[Violation]:
    """A task, step or hook calls a template that does not exist, or says not exactly one of `template`, `templateRef`
    and `inline`.
    """
    for call in document.calls:
        ways = [name for name in ("template", "templateRef", "inline") if call.value.get(name) not in (None, "")]
        name, reference = str(call.value.get("template", "")), call.reference
        if len(ways) != 1:
            what = f"both {' and '.join(ways)}" if ways else "no template to call"
            yield Violation(call.path, f"it has {what}", "give one of template, templateRef, inline")
        elif name:
            path = call.path if call.path.endswith(".onExit") else join(call.path, "template")
            yield from _undefined(document, name, path)
        elif reference:
            yield from _undefined_reference(document, reference, join(call.path, "templateRef"))


def outside_reference(document: Document) -> Iterator[Violation]:
    """A `templateRef` or `workflowTemplateRef` names a document that is in none of the files given, so that what
    it holds could not be checked (an error with `--strict-refs`).
    """
    references = [(join(call.path, "templateRef"), call.reference) for call in document.calls]
    references.append((join(document.path, "workflowTemplateRef"), document.reference))
    for path, reference in references:
        name = str(reference.get("name", ""))
        if name and "{{" not in name and document.library.find(reference, document.namespace) is None:
            kind = "ClusterWorkflowTemplate" if reference.get("clusterScope") else "WorkflowTemplate"
            yield Violation(path, f"{kind} `{name}` is not in these files", "give its file as well")


def missing_input(document: Document) -> Iterator[Violation]:
    """A call leaves out an input parameter without default, or an input artifact that is not optional; also the
    call of `entrypoint` and `onExit`, which take theirs from the workflow's arguments.
    """
    for call in document.calls:
        if call.called:
            yield from _missing(call.called, call.arguments, join(call.path, "arguments"))
    if document.is_template:
        return
    referred = document.referred
    given = [document.spec, referred.spec] if referred else [document.spec]
    arguments = {
        kind: [value for spec in given for _, value in listed(section(spec, "arguments"), kind, "")]
        for kind in ("parameters", "artifacts")
    }
    for field in ("entrypoint", "onExit"):
        name = next((str(spec[field]) for spec in given if spec.get(field)), "")
        template = document.template(name)
        if template:
            # Under lint, an argument of the workflow may go without a value: who submits gives it.
            known = {k: [{"value": "", **v} for v in values] for k, values in arguments.items()}
            yield from _missing(template, known, join(document.path, "arguments"))


def unknown_input(document: Document) -> Iterator[Violation]:
    """A call gives an argument which the called template does not declare: Argo drops it in silence."""
    for call in document.calls:
        for kind in ("parameters", "artifacts") if call.called else ():
            known = call.called.names("inputs", kind) if call.called else []
            for path, value in listed(call.arguments, kind, join(call.path, "arguments")):
                name = str(value.get("name", ""))
                if name and name not in known and call.called:
                    fix = unknown(name, known) if known else f"remove it, or declare it in {call.called.label}"
                    yield Violation(join(path, "name"), f"{call.called.label} has no input `{name}`", fix)


def endless_recursion(document: Document) -> Iterator[Violation]:
    """Templates call each other in a ring and no call in it has a `when`, so that it never ends by itself."""
    seen: set[str] = set()
    for template in document.own_templates:
        ring = _ring(template, seen)
        if ring:
            names = " -> ".join(ring)
            yield Violation(
                template.path, f"templates call each other without end: {names}", "add a `when` to one of the calls"
            )


def _undefined(document: Document, name: str, path: str) -> Iterator[Violation]:
    if "{{" in name or document.template(name):
        return
    if document.reference and document.referred is None:
        return
    names = [template.name for template in (document.referred or document).own_templates]
    yield Violation(path, f"no template is called `{name}`", unknown(name, names) if names else "add it to templates")


def _undefined_reference(document: Document, reference: Value, path: str) -> Iterator[Violation]:
    name, template = str(reference.get("name", "")), str(reference.get("template", ""))
    for field, value in (("name", name), ("template", template)):
        if not value:
            yield Violation(path, f"the templateRef has no {field}", f"add {field}")
    target = document.library.find(reference, document.namespace)
    if target and template and "{{" not in template and target.template(template) is None:
        names = [found.name for found in target.own_templates]
        yield Violation(join(path, "template"), f"`{name}` has no template `{template}`", unknown(template, names))


def _missing(template: Template, arguments: Value, path: str) -> Iterator[Violation]:
    given = {
        kind: {str(value.get("name")): value for _, value in listed(arguments, kind, "")}
        for kind in ("parameters", "artifacts")
    }
    for _, wanted in template.parts("inputs", "parameters"):
        name = str(wanted.get("name", ""))
        argument = given["parameters"].get(name, {})
        has_value = {"value", "valueFrom", "default"} & {*argument, *wanted}
        if name and not has_value:
            yield Violation(
                path, f"{template.label} needs the input `{name}`", f"give parameter {name}, or declare a default"
            )
    for _, wanted in template.parts("inputs", "artifacts"):
        name = str(wanted.get("name", ""))
        located = set(wanted) - {"name", "path", "mode", "optional", "recurseMode", "archive", "description"}
        if name and not wanted.get("optional") and not located and name not in given["artifacts"]:
            yield Violation(
                path, f"{template.label} needs the artifact `{name}`", f"give artifact {name}, or make it optional"
            )


def _ring(start: Template, seen: set[str]) -> list[str]:
    """Names on a way from a template back to itself that nothing cuts short; its members are told once."""
    todo: list[tuple[Template, list[str]]] = [(start, [start.name])]
    passed: set[str] = set()
    while todo:
        template, way = todo.pop()
        for task in template.tasks:
            called = _always_called(task)
            if called is None or called.document is not start.document:
                continue
            if called.name == start.name and called.name and start.name not in seen:
                seen.update(way)
                return [*way, start.name]
            if called.name not in passed:
                passed.add(called.name)
                todo.append((called, [*way, called.name]))
    return []


def _always_called(task: Call) -> Template | None:
    return None if {"when", "withParam", "depends"} & set(task.value) else task.called
