"""Values of parameters at the time when Argo checks a document, before it runs."""

from __future__ import annotations

import re

from workflows.argo.document import Document, Template, listed, section
from workflows.argo.tags import item_text


def checked_value(document: Document, template: Template, tag: re.Match[str]) -> str:
    """Return the value of a tag of a parameter when Argo checks a template; the tag where it has none."""
    kind, _, name = tag[1].rpartition(".")
    specs = [document.spec, *([document.referred.spec] if document.referred else [])]
    parameters = [v for spec in specs for _, v in listed(section(spec, "arguments"), "parameters", "")]
    if kind == "inputs.parameters":
        own = [value for _, value in template.parts("inputs", "parameters")]
        is_entrypoint = template.name == document.spec.get("entrypoint") and not document.is_template
        parameters = [*(parameters if is_entrypoint else []), *own]
        if not is_entrypoint:
            return tag[0] if document.is_template else "a value that is known only at runtime"
    elif kind != "workflow.parameters":
        return tag[0]
    values = [value.get("value", value.get("default")) for value in parameters if value.get("name") == name]
    return next((item_text(value) for value in values if value is not None), tag[0])
