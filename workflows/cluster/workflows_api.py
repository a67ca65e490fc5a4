"""The interface to the Workflows of a cluster, by the Kubernetes API or an Argo server."""

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
MAIN_CONTAINER = "main"
"""The container that runs the step (Argo: docs/workflow-concepts.md)."""


@dataclass(frozen=True)
class Listing:
    """Listed objects, and the resource version to watch from."""

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
        """Resource version to continue from."""
        return str((self.object.get("metadata") or {}).get("resourceVersion") or "")


@dataclass(frozen=True)
class Scope:
    """Selection of Workflows."""

    name: str = ""
    selector: str = ""
    """Labels, as in ``kubectl -l``."""
    all_namespaces: bool = False
    """Select Workflows of all namespaces."""

    def query(self, prefix: str = "") -> dict[str, str]:
        """Return the query parameters of a list or a watch."""
        fields = f"metadata.name={self.name}" if self.name else ""
        parameters = {"fieldSelector": fields, "labelSelector": self.selector}
        return {prefix + key: value for key, value in parameters.items() if value}


class Workflows(ABC):
    """The Workflows of one namespace. Every method raises ``ApiFailure``; idempotent requests are retried."""

    namespace: str
    server: str
    """Display name of the cluster or Argo server."""

    @abstractmethod
    def create(self, document: Document, *, dry_run: bool = False) -> Document:
        """Create an Argo object exactly once, even if a response is lost; ``dry_run``: only validate it."""

    @abstractmethod
    def get(self, name: str) -> Document:
        """Return the Workflow of that name."""

    @abstractmethod
    def list(self, scope: Scope) -> Listing:
        """Return the Workflows of a scope."""

    @abstractmethod
    def events(self, scope: Scope, version: str, seconds: int) -> Iterator[Event]:
        """Yield the changes since ``version`` for at most ``seconds``, or until the server ends the watch."""

    @abstractmethod
    def shut_down(self, name: str, *, terminate: bool) -> None:
        """Stop a run: its exit handler still runs, unless ``terminate`` is set."""

    @abstractmethod
    def set_outputs(self, name: str, node_id: str, answers: Mapping[str, str], message: str) -> None:
        """Resume a suspended node with values for its ``supplied`` output parameters."""

    @abstractmethod
    def log(
        self, name: str, pod: str, *, follow: bool = False, since: str = "", tail: int | None = None
    ) -> Iterator[str]:
        """Yield log lines of a pod's main container, each prefixed with its timestamp and a space."""
