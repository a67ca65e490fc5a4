"""The ConfigMaps that a Workspace names: of its file, of other files, or of the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from workflows.errors import InvalidInput, Problem
from workflows.spec import source_text
from workflows.spec.findings import Findings
from workflows.spec.objects import KAITO_TEMPLATES, KubernetesObject, list_items
from workflows.spec.source import Document, documents

MISSING = "not found in this file"
Lookup = Callable[[str, str], dict[str, Any]]
"""Returns a ConfigMap of the cluster by its name and the namespace of the Workspace ("": the default one).

Raises InvalidInput if it does not exist or cannot be read.
"""


class ConfigMaps:
    """ConfigMaps by name, and their lookup on the cluster (None: no cluster is used)."""

    def __init__(self, objects: Sequence[KubernetesObject], lookup: Lookup | None = None) -> None:
        self._own = {thing.name: thing for thing in objects if thing.kind == "ConfigMap"}
        self._all = dict(self._own)
        self._lookup = lookup

    def add_files(self, files: Sequence[str], file: str) -> Iterator[Problem]:
        """Add the ConfigMaps of other files that ``file`` lacks, without their problems, which each file reports.

        Yields:
            ConfigMaps of one name in two of the other files.
        """
        for other in files:
            label = source_text.label(other)
            if label == file:
                continue
            try:
                parts, _ = documents(source_text.read(other, label), label)
            except InvalidInput:
                continue
            objects = (KubernetesObject(item, label) for part in parts for item in list_items(part))
            for thing in objects:
                if thing.kind != "ConfigMap" or thing.name in self._own:
                    continue
                first = self._all.setdefault(thing.name, thing)
                if first.source.file != thing.source.file:
                    what = f"ConfigMap {thing.name} is also in {first.source.file}"
                    yield thing.problem("metadata.name", what, "pass only one of these files")

    def content(self, name: str, namespace: str, path: str, key: str, prefix: str, findings: Findings) -> Any:
        """Return the parsed content of a ConfigMap's key; None if there is none, which is reported at ``path``."""
        if not name:
            return None
        if name in self._all:
            return self._all[name].config(key, prefix, findings)
        if name in KAITO_TEMPLATES:
            fix = "add the ConfigMap to this file to use KAITO's values"
            findings.warn(path, f"{name} is KAITO's default; argotune uses its own defaults", fix)
        elif self._lookup:
            return self._content_of_cluster(name, namespace, path, key, prefix, findings)
        else:
            what = f"ConfigMap '{name}' specified in 'config' {MISSING}"
            fix = (
                "add it after a line ---, or pass its file or directory too (kubectl get configmap -o yaml prints "
                "it); argotune submit reads it from the cluster"
            )
            findings.error(path, what, fix)
        return None

    def _content_of_cluster(
        self, name: str, namespace: str, path: str, key: str, prefix: str, findings: Findings
    ) -> Any:
        assert self._lookup
        try:
            value = self._lookup(name, namespace)
        except InvalidInput as error:
            for problem in error.problems:
                findings.error(path, problem.message, problem.fix)
            return None
        data = value.get("data")
        # Lines are counted from the first line of the key's text.
        blocks = {f"data.{entry}": 1 for entry in data} if isinstance(data, dict) else {}
        return KubernetesObject(Document(value, {}, blocks), f"ConfigMap {name}").config(key, prefix, findings)
