"""What is asked of a cluster about Workflows, whichever way leads to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]

GROUP = "argoproj.io"
VERSION = "v1alpha1"
PLURALS = {
    "Workflow": "workflows",
    "WorkflowTemplate": "workflowtemplates",
    "ClusterWorkflowTemplate": "clusterworkflowtemplates",
    "CronWorkflow": "cronworkflows",
}
MAIN = "main"
"""The container of a pod that does the step's work (Argo: docs/workflow-concepts.md)."""


@dataclass(frozen=True)
class Listing:
    """The objects there were, and the resource version to watch from."""

    items: list[Document]
    version: str


@dataclass(frozen=True)
class Event:
    """One line of a watch."""

    kind: str
    """``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK``."""
    object: Document

    @property
    def version(self) -> str:
        """Resource version to go on from."""
        return str((self.object.get("metadata") or {}).get("resourceVersion") or "")


@dataclass(frozen=True)
class Scope:
    """Which Workflows are meant."""

    name: str = ""
    selector: str = ""
    """Labels, as ``kubectl -l`` takes them."""
    all_namespaces: bool = False
    """In all namespaces."""

    def query(self, prefix: str = "") -> dict[str, str]:
        """As query parameters of a list or a watch."""
        fields = f"metadata.name={self.name}" if self.name else ""
        given = {"fieldSelector": fields, "labelSelector": self.selector}
        return {prefix + key: value for key, value in given.items() if value}


class Workflows(ABC):
    """The Workflows of one namespace. Every method raises ``ApiFailure``; calls that may be repeated are."""

    namespace: str
    place: str
    """Which cluster or server, for people."""

    @abstractmethod
    def create(self, document: Document, *, dry_run: bool = False) -> Document:
        """Create an Argo object, never twice whatever is lost on the way; ``dry_run``: the server only checks it."""

    @abstractmethod
    def get(self, name: str) -> Document:
        """The Workflow of that name."""

    @abstractmethod
    def list(self, scope: Scope) -> Listing:
        """The Workflows there are."""

    @abstractmethod
    def events(self, scope: Scope, version: str, seconds: int) -> Iterator[Event]:
        """Changes since ``version``, for ``seconds`` at most; ends when the server ends it."""

    @abstractmethod
    def shut_down(self, name: str, *, terminate: bool) -> None:
        """End a run: its exit handler still runs, unless it is to ``terminate``."""

    @abstractmethod
    def set_outputs(self, name: str, node_id: str, answers: Mapping[str, str], message: str) -> None:
        """Let a suspended node go on, with values for its ``supplied`` output parameters."""

    @abstractmethod
    def log(
        self, name: str, pod: str, *, follow: bool = False, since: str = "", tail: int | None = None
    ) -> Iterator[str]:
        """Lines of a pod's main container, each after its time and a space."""
