"""The Kubernetes objects of a file, before any is read as what it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from workflows.errors import Problem
from workflows.spec.findings import Findings
from workflows.spec.source import Document, Source, documents

KAITO_TEMPLATES = ("qlora-params-template", "lora-params-template", "inference-params-template")
"""ConfigMaps of KAITO's installation that hold its own defaults."""
KINDS = ("Workspace", "InferenceSet")
"""What is compiled."""
OTHER_KINDS = {
    "MultiRoleInference": (
        "one server both reads a prompt and writes the answer",
        "write an InferenceSet with the same model and replicas",
    ),
    "ModelMirror": ("base models are kept on the models volume", "leave it out"),
    "RAGEngine": ("it neither tunes nor serves a model", "apply it with kubectl, and point it at the served endpoint"),
}
"""KAITO's other kinds: why they are not compiled, and what is near."""
# What a cluster writes into an object: taken out, so that `kubectl get -o yaml` can be read.
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
        """Kind, namespace and name; what is compiled shares its names."""
        return KINDS[0] if self.kind in KINDS else self.kind, str(self.metadata.get("namespace", "")), self.name

    def problem(self, path: str, what: str, fix: str) -> Problem:
        """A problem at a field of this object."""
        return Problem(what, path, self.source.file, self.source.line(path), fix)

    def check(self) -> Iterator[Problem]:
        """What keeps the object from being read at all."""
        if not self.is_map:
            yield self.problem("", "is not a Kubernetes object", "write apiVersion:, kind: and metadata:")
        elif not self.kind:
            yield self.problem("", "missing field kind", "write kind: Workspace")
        elif str(self.value.get("apiVersion")).startswith("kaito.sh/") and self.kind not in (*KINDS, *OTHER_KINDS):
            yield self.problem("kind", f"unknown kind {self.kind}", "write kind: Workspace")

    def workspace_fields(self, found: Findings) -> dict[str, Any]:
        """The fields of a Workspace that its author wrote, at the places where they belong."""
        value = dict(self.value)
        if isinstance(value.get("metadata"), dict):
            value["metadata"] = {k: v for k, v in self.metadata.items() if k not in _OF_THE_CLUSTER}
        if "status" in value:
            del value["status"]
            found.warn("status", "is written by the cluster, and not read")
        if self.kind == "Workspace" and isinstance(value.get("spec"), dict):
            what = "a Workspace has no spec: resource, tuning and inference stand at top level"
            found.wrong("spec", what, "delete the line spec: and move what is under it to the left")
            value = {**value.pop("spec"), **value}
            found.source = Source(found.source.file, _lifted(found.source.lines))
        return value

    def config(self, key: str, prefix: str, found: Findings) -> Any:
        """Content of a ConfigMap's key, read as YAML; None when it is not there or not YAML.

        Its fields get lines of this file, under paths that begin with ``prefix``.
        """
        data = self.value.get("data")
        text = data.get(key) if isinstance(data, dict) else None
        if not isinstance(text, str):
            what = f"missing key {key} in ConfigMap {self.name}"
            found.errors.append(self.problem("data", what, f"write {key}: | and the YAML below it"))
            return None
        path = f"data.{key}"
        first = self.blocks.get(path, self.source.line(path))
        root = key.removesuffix(".yaml")
        parts, problems = documents(text, self.source.file, first, prefix)
        problems = [replace(problem, path=problem.path or root) for problem in problems]
        lines = {**found.source.lines, root: first}
        for part in parts:
            inside = part.lines if path in self.blocks else dict.fromkeys(part.lines, first)
            lines |= {place: line for place, line in inside.items() if place}
        found.source = Source(found.source.file, lines)
        found.errors += problems
        if len(parts) > 1:
            found.errors.append(self.problem(path, "holds several YAML documents", "keep one"))
        if parts:
            return {} if parts[0].value is None else parts[0].value
        return None if problems else {}


def twice(objects: list[KubernetesObject]) -> Iterator[Problem]:
    """Objects of one kind and name."""
    seen: dict[tuple[str, str, str], int] = {}
    for thing in objects:
        line = thing.source.line("metadata.name")
        if thing.name and thing.identity in seen:
            what = f"{thing.kind} {thing.name} stands twice in the file, first on line {seen[thing.identity]}"
            yield thing.problem("metadata.name", what, "rename or remove one of them")
        seen.setdefault(thing.identity, line)


def _lifted(lines: Any) -> dict[str, int]:
    return {path.removeprefix("spec."): line for path, line in lines.items()} | {"spec": lines.get("spec", 0)}


def _without_nulls(value: Any) -> Any:
    """A field that is null is not set, as for the Kubernetes API."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
