"""Values of parameters at the time when Argo checks a document, before it runs."""

from __future__ import annotations

import re
from functools import partial

from workflows.argo import scope
from workflows.argo.document import Document, Template, listed, section
from workflows.argo.tags import TAG, item_text

ONLY_AT_RUNTIME = "a value that is known only at runtime"
_EXPRESSION = re.compile(r"\{\{=(.*?)\}\}", re.DOTALL)
_TERM = re.compile(
    r"\s*(?:((?:sprig\.)?(?:upper|lower))\()?\s*"  # a function,
    r"(?:'([^'\\]*)'|\"([^\"\\]*)\"|([\w.-]+))"  # a string or variable,
    r"\s*(\))?\s*"
)


def checked_text(document: Document, template: Template, text: str) -> str | None:
    """Return a text of a template with the values that it has when Argo checks it; None if an expression in it is
    more than strings, parameters, ``+``, ``upper`` and ``lower``.
    """
    text = TAG.sub(partial(checked_value, document, template), text)
    for match in _EXPRESSION.finditer(text):
        value = _evaluate(document, template, match)
        if value is None:
            return None
        text = text.replace(match[0], value)
    return text


def checked_name(document: Document, template: Template, name: str) -> str | None:
    """Return the name of a step when Argo checks it, with ``x`` for what is known only then; None as in
    :func:`checked_text`. A tag that has no value yet stays in the name.
    """

    def value(tag: re.Match[str]) -> str:
        is_text = not tag[1].startswith("inputs.artifacts.") and not tag[1].endswith((".parameters", ".json"))
        return "x" if is_text and is_known(document, template, tag[1]) else tag[0]

    return checked_text(document, template, TAG.sub(value, name))


def checked_value(document: Document, template: Template, tag: re.Match[str]) -> str:
    """Return the value of a tag of a parameter when Argo checks a template; the tag where it has none."""
    value = _parameter(document, template, tag[1])
    return tag[0] if value is None else value


def _parameter(document: Document, template: Template, tag: str) -> str | None:
    """Return the value of a parameter when Argo checks a template; None if it has none."""
    if tag == "inputs.parameters":
        return item_text([value for _, value in template.parts("inputs", "parameters")] or None)
    kind, _, name = tag.rpartition(".")
    specs = [document.spec, *([document.referred.spec] if document.referred else [])]
    arguments = [v for spec in specs for _, v in listed(section(spec, "arguments"), "parameters", "")]
    # Argo reads the default of an input, but not that of an argument.
    parameters = [{"name": value.get("name"), "value": value.get("value")} for value in arguments]
    if kind == "inputs.parameters":
        own = [dict(value) for _, value in template.parts("inputs", "parameters")]
        is_entrypoint = template.name == document.spec.get("entrypoint") and not document.is_template
        parameters = [*(parameters if is_entrypoint else []), *own]
        if not is_entrypoint:
            return None if document.is_template else ONLY_AT_RUNTIME
    elif kind != "workflow.parameters":
        return None
    values = [value.get("value", value.get("default")) for value in parameters if value.get("name") == name]
    return next((item_text(value) for value in values if value is not None), None)


def _evaluate(document: Document, template: Template, tag: re.Match[str]) -> str | None:
    """Return the value of an expression tag; the tag itself if it has an unknown variable; None if not supported."""
    result = ""
    for part in tag[1].split("+"):
        term = _TERM.fullmatch(part)
        if term is None or bool(term[1]) != bool(term[5]):
            return None
        value = term[2] if term[2] is not None else term[3]
        if value is None and term[4].isdecimal():
            return term[4] if term[4] == tag[1].strip() else None
        if value is None:
            value = _parameter(document, template, term[4])
        if value is None and is_known(document, template, term[4]):
            value = ONLY_AT_RUNTIME
        if value is None:
            return tag[0]
        result += value.upper() if (term[1] or "").endswith("upper") else value.lower() if term[1] else value
    return result


def is_known(document: Document, template: Template, tag: str) -> bool:
    """Return True if a tag of the workflow or of an input is declared."""
    return tag in scope.template_scope(template, scope.document_scope(document)).tags
