"""The Kubernetes objects of a file, before they are validated by kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from workflows.errors import Problem
from workflows.spec.findings import Findings
from workflows.spec.source import Document, Source, documents

KAITO_TEMPLATES = ("qlora-params-template", "lora-params-template", "inference-params-template")
"""ConfigMaps of KAITO's installation with its defaults."""
KINDS = ("Workspace", "InferenceSet")
"""Supported kinds."""
OTHER_KINDS = {
    "MultiRoleInference": (
        "disaggregated prefill and decode is not supported",
        "write an InferenceSet with the same model and replicas",
    ),
    "ModelMirror": ("base models are cached on the models volume", "remove it"),
    "RAGEngine": ("it does not tune or serve a model", "apply it with kubectl, and point it at the served endpoint"),
}
"""KAITO's other kinds: the reason why they are not supported, and the fix."""
# Fields that a cluster writes: removed, so that the output of `kubectl get -o yaml` can be read.
_OF_THE_CLUSTER = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)


class KubernetesObject:
    """One document of the file."""

    def __init__(self, document: Document, file: str) -> None:
        self.source = Source(file, document.lines)
        self.blocks = document.blocks
        self.is_map = isinstance(document.value, dict)
        self.value: dict[str, Any] = _without_nulls(document.value) if self.is_map else {}
        metadata = self.value.get("metadata")
        self.metadata: dict[str, Any] = metadata if isinstance(metadata, dict) else {}
        self.kind, self.name = str(self.value.get("kind", "")), str(self.metadata.get("name", ""))

    @property
    def identity(self) -> tuple[str, str, str]:
        """Kind, namespace and name; supported kinds share their names."""
        return KINDS[0] if self.kind in KINDS else self.kind, str(self.metadata.get("namespace", "")), self.name

    def problem(self, path: str, what: str, fix: str) -> Problem:
        """Return a problem at a field of this object."""
        return Problem(what, path, self.source.file, self.source.line(path), fix)

    def check(self) -> Iterator[Problem]:
        """Yield problems that prevent reading the object."""
        if not self.is_map:
            yield self.problem("", "is not a Kubernetes object", "write apiVersion:, kind: and metadata:")
        elif not self.kind:
            yield self.problem("", "missing field kind", "write kind: Workspace")
        elif self.kind == "ConfigMap" and not self.name:
            yield self.problem("metadata", "missing field metadata.name", "write metadata: {name: ...}")
        elif str(self.value.get("apiVersion")).startswith("kaito.sh/") and self.kind not in (*KINDS, *OTHER_KINDS):
            yield self.problem("kind", f"unknown kind {self.kind}", "write kind: Workspace")

    def workspace_fields(self, findings: Findings) -> dict[str, Any]:
        """Return the fields of a Workspace that its author wrote, at their correct paths."""
        value = dict(self.value)
        if isinstance(value.get("metadata"), dict):
            value["metadata"] = {k: v for k, v in self.metadata.items() if k not in _OF_THE_CLUSTER}
        if "status" in value:
            del value["status"]
            findings.warn("status", "is written by the cluster and ignored")
        if self.kind == "Workspace" and isinstance(value.get("spec"), dict):
            what = "a Workspace has no spec: resource, tuning and inference are at the top level"
            findings.error("spec", what, "remove the line spec: and unindent its content")
            value = {**value.pop("spec"), **value}
            findings.source = replace(findings.source, lines=_lifted(findings.source.lines))
        return value

    def config(self, key: str, prefix: str, findings: Findings) -> Any:
        """Return the content of a ConfigMap's key, parsed as YAML; None if missing or invalid.

        The lines of its fields are added to the source, under paths with ``prefix``.
        """
        data = self.value.get("data")
        text = data.get(key) if isinstance(data, dict) else None
        if not isinstance(text, str):
            what = f"missing key {key} in ConfigMap {self.name}"
            fix = f"write {key}: | and the YAML text below it"
            if key in (self.value.get("binaryData") or {}):
                fix = f"move {key} from binaryData to data, as text (base64 -d)"
            findings.errors.append(self.problem("data", what, fix))
            return None
        path = f"data.{key}"
        first = self.blocks.get(path, self.source.line(path))
        root = key.removesuffix(".yaml")
        parts, problems = documents(text, self.source.file, first, prefix)
        problems = [replace(problem, path=problem.path or root) for problem in problems]
        lines = {**findings.source.lines, root: first}
        for part in parts:
            inside = part.lines if path in self.blocks else dict.fromkeys(part.lines, first)
            lines |= {place: line for place, line in inside.items() if place}
        others = {root: self.source.file} if self.source.file != findings.source.file else {}
        findings.source = Source(findings.source.file, lines, {**findings.source.files, **others})
        findings.errors += problems
        if len(parts) > 1:
            findings.errors.append(self.problem(path, "contains several YAML documents", "keep one"))
        if parts:
            return {} if parts[0].value is None else parts[0].value
        return None if problems else {}


def list_items(document: Document) -> Iterator[Document]:
    """Yield the objects of a ``List``, as kubectl writes several objects; other documents as they are."""
    value = document.value
    if not isinstance(value, dict) or value.get("kind") != "List" or not isinstance(value.get("items"), list):
        yield document
        return
    for index, item in enumerate(value["items"]):
        prefix = f"items[{index}]"
        yield Document(item, _below(document.lines, prefix), _below(document.blocks, prefix))


def _below(lines: dict[str, int], prefix: str) -> dict[str, int]:
    return {
        path.removeprefix(prefix).removeprefix("."): line
        for path, line in lines.items()
        if path == prefix or path.startswith(f"{prefix}.")
    }


def twice(objects: list[KubernetesObject]) -> Iterator[Problem]:
    """Yield duplicate objects (same kind, namespace and name)."""
    seen: dict[tuple[str, str, str], int] = {}
    for thing in objects:
        line = thing.source.line("metadata.name")
        if thing.name and thing.identity in seen:
            what = f"{thing.kind} {thing.name} is a duplicate, first on line {seen[thing.identity]}"
            yield thing.problem("metadata.name", what, "rename or remove one of them")
        seen.setdefault(thing.identity, line)


def _lifted(lines: Any) -> dict[str, int]:
    return {path.removeprefix("spec."): line for path, line in lines.items()} | {"spec": lines.get("spec", 0)}


def _without_nulls(value: Any) -> Any:
    """Remove null fields, as the Kubernetes API does."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
