"""Declarations that nothing uses."""

from __future__ import annotations

import json
from collections.abc import Iterator

from workflows.argo.document import Document, Value, listed, section
from workflows.lint.rules.rule import Violation


def unused_volume(document: Document) -> Iterator[Violation]:
    """A volume or a `volumeClaimTemplate` is mounted by no container. Workflows that call templates of documents
    outside the files are not checked.
    """
    if document.is_template or document.reference or any(call.reference for call in document.calls):
        return
    if '"volumes":' not in document.text and '"volumeClaimTemplates":' not in document.text:
        return
    texts = [json.dumps(template.value) for template in document.templates]
    texts.append(json.dumps([document.defaults, document.spec.get("podSpecPatch")]))
    for path, volume in _volumes(document.spec, document.path):
        if not _is_named(_name(volume), texts):
            yield Violation(path, f"no container mounts the volume `{_name(volume)}`", "mount it, or remove it")
    for template in document.templates:
        own = [json.dumps({key: value for key, value in template.value.items() if key != "volumes"})]
        for path, volume in listed(template.value, "volumes", template.path):
            if not _is_named(_name(volume), own):
                yield Violation(path, f"no container mounts the volume `{_name(volume)}`", "mount it, or remove it")


def unread_output(document: Document) -> Iterator[Violation]:
    """An output parameter of a template that a task calls is not read: no tag, expression or `globalName` names
    it.
    """
    if document.is_template or document.reference:
        return
    text = document.text
    called = {id(call.called.value) for call in document.calls if call.called}
    for template in document.templates:
        if id(template.value) not in called or template.type == "suspend":
            continue
        for path, output in template.parts("outputs", "parameters"):
            name = str(output.get("name", ""))
            read = f"outputs.parameters.{name}" in text or f"outputs.parameters['{name}']" in text
            if name and not output.get("globalName") and not read and "outputs.parameters}}" not in text:
                yield Violation(path, f"no task reads the output `{name}`", "remove it, or use it in a later task")


def _volumes(spec: Value, path: str) -> list[tuple[str, Value]]:
    return [*listed(spec, "volumes", path), *listed(spec, "volumeClaimTemplates", path)]


def _name(volume: Value) -> str:
    return str(volume.get("name") or section(volume, "metadata").get("name", ""))


def _is_named(name: str, texts: list[str]) -> bool:
    quoted = json.dumps(name)
    return any(f'"name": {quoted}' in text or "{{" in name for text in texts)
