"""Errors of the Kubernetes API.

StepError
+-- ApiError           the server rejected a request
|   +-- AlreadyExists
|   +-- Conflict
+-- BadInput
    +-- KindNotInstalled
"""

from __future__ import annotations

from steps.runtime.errors import BadInput, StepError


class ApiError(StepError):
    """The API server rejected a request, and rejects it again."""

    def __init__(self, status: int, reason: str, message: str, fix: str = "") -> None:
        super().__init__(message, fix or "check the cluster, and the log of its API server")
        self.status, self.reason = status, reason


class AlreadyExists(ApiError):
    """An object of this name exists, created by another client or by a call whose response was lost."""


class Conflict(ApiError):
    """The object has changed since it was read, or another manager owns a field."""


class Forbidden(BadInput):
    """The account has no role for the request."""


class KindNotInstalled(BadInput):
    """The cluster has no such kind: its CustomResourceDefinition is not installed."""
