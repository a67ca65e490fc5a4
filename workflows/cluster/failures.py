"""Failed cluster requests as one error: what was requested, why it failed, and how to fix it.

Built from a ``Status`` of Kubernetes (API conventions, "Response Status Kind"), from the ``{code, message}`` of an
Argo server, or from a connection error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steps.runtime import connection_failure
from steps.runtime.connection_failure import is_transient_status
from steps.runtime.redaction import redact
from workflows.errors import ArgotuneError, InvalidInput

INSTALL_ARGO = (
    "install Argo Workflows 3.6 or later (https://argo-workflows.readthedocs.io/en/latest/installation/), then see "
    "argo/README.md; or select another cluster with --context"
)
UNREACHABLE = "Unreachable"
"""Reason of a failure before a request was sent: single requests are not retried."""
_ACTIONS = {"get": "read", "patch": "change"}


@dataclass(frozen=True)
class ApiRequest:
    """A cluster request in Kubernetes' terms."""

    verb: str
    resource: str
    """As in RBAC: ``workflows``, ``pods/log``."""
    server: str
    """Display name of the cluster or Argo server."""
    namespace: str = ""
    name: str = ""

    @property
    def subject(self) -> str:
        """``workflow oncall-x7k2m``, or ``workflows`` without a name."""
        return f"{self.resource.removesuffix('s')} {self.name}" if self.name else self.resource

    @property
    def action(self) -> str:
        """``read workflow oncall-x7k2m``."""
        return f"{_ACTIONS.get(self.verb, self.verb)} {self.subject}"

    @property
    def location(self) -> str:
        """`` in namespace argotune``, or empty for the whole cluster."""
        return f" in namespace {self.namespace}" if self.namespace else ""


class ApiFailure(ArgotuneError):
    """A request that the cluster rejected or did not answer."""

    def __init__(
        self,
        request: ApiRequest,
        status: int,
        message: str,
        fix: str = "",
        *,
        reason: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{message}\n    fix: {fix}" if fix else message)
        self.request = request
        self.status = status
        """HTTP status; 0 without a response."""
        self.message = message
        self.fix = fix
        self.reason = reason
        self.retry_after = retry_after
        self.exit_code = InvalidInput.exit_code if status in (400, 404, 409, 413, 422) else ArgotuneError.exit_code

    @property
    def is_transient(self) -> bool:
        """True if the same request can succeed a little later."""
        return self.status == 0 or is_transient_status(self.status)

    @property
    def is_expired(self) -> bool:
        """True if the server no longer has the changes since a resource version (410): list again."""
        return self.status == 410 or self.reason in ("Gone", "Expired")


def failure_from_response(
    request: ApiRequest, status: int, body: Mapping[str, Any] | str, retry_after: float | None = None
) -> ApiFailure:
    """Return the failure that a response other than 2xx reports."""
    content = body if isinstance(body, Mapping) else {}
    message = str(redact(str(content.get("message") or (body if isinstance(body, str) else ""))))[:2000].strip()
    reason = str(content.get("reason") or "")
    details = content.get("details") if isinstance(content.get("details"), Mapping) else {}
    message, fix = _explain(request, status, message, reason, details or {})
    return ApiFailure(request, status, message, fix, reason=reason, retry_after=retry_after)


def failure_from_connection(request: ApiRequest, error: BaseException) -> ApiFailure:
    """Return the failure of a connection; its root cause determines the message."""
    text = str(redact(" <- ".join(str(cause) for cause in _causes(error))))
    server, failure = request.server, connection_failure.classify(error)
    message, fix, reason = f"{server} is unreachable", "check the address and your network", ""
    if failure.is_proxy:
        message, fix = f"{server} is unreachable: {failure.reason}", failure.fix or "try again"
        reason = UNREACHABLE if failure.is_permanent else ""
    elif "certificate verify failed" in text.lower() or "CERTIFICATE" in text:
        message, reason = f"the certificate of {server} is not trusted", UNREACHABLE
        fix = "get the credentials of the cluster again, or configure its certificate authority"
    elif re.search(r"Connection refused|Errno 111", text):
        message, reason = f"{server}: connection refused", UNREACHABLE
        fix = "start the cluster (or the port-forward), or select another with --context"
    elif re.search(r"Name or service not known|NameResolution|getaddrinfo|Temporary failure in name", text):
        message, reason = f"cannot resolve the host name of {server}", UNREACHABLE
        fix = "connect the VPN, or select another cluster with --context"
    elif re.search(r"timed? ?out", text, re.IGNORECASE):
        message, fix = f"{server} timed out", "check your network and VPN"
    elif re.search(r"reset|aborted|broken pipe|IncompleteRead|Disconnected|ended early", text, re.IGNORECASE):
        message, fix = f"the connection to {server} was lost", "try again"
    return ApiFailure(request, 0, message, fix, reason=reason)


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and len(causes) < 8:
        causes.append(error)
        reason = getattr(error, "reason", None)
        error = reason if isinstance(reason, BaseException) else error.__cause__ or error.__context__
    return causes


def _explain(
    request: ApiRequest, status: int, message: str, reason: str, details: Mapping[str, Any]
) -> tuple[str, str]:
    """Return message and fix for a status."""
    server, subject, action = request.server, request.subject, request.action
    if status == connection_failure.PROXY_LOGIN:
        failure = connection_failure.from_proxy(status)
        return f"{server} is unreachable: {failure.reason}", failure.fix
    if status == 401:
        return f"{server} rejected your credentials", "log in again (az login, kubelogin, ARGO_TOKEN...)"
    if status == 403:
        return _explain_forbidden(request, message)
    if status == 404:
        return _explain_not_found(request, message, details)
    if status == 409:
        if reason == "AlreadyExists" or "already exists" in message:
            return f"{subject} already exists{request.location}", "choose another name, or delete the existing one"
        return f"{subject} was changed at the same time", "try again"
    if status in (400, 422):
        return f"{server} refused to {action}: {_field_errors(message, details)}", "run argotune lint FILE"
    if status == 413 or "too large" in message.lower():
        fix = "put the data into a volume or an image instead of a long list of URLs"
        return f"{subject} is too large for the cluster: {message}", fix
    if status == 429:
        return f"{server} is overloaded (429) and did not {action}", "try again in a minute"
    suffix = f": {message}" if message else ""
    return f"{server} failed to {action} ({status}){suffix}", "try again; if it persists, check the cluster"


def _explain_forbidden(request: ApiRequest, message: str) -> tuple[str, str]:
    if "exceeded quota" in message:
        fix = "wait for other runs, or raise the quota (argo/install/quota.yaml)"
        return f"quota exceeded{request.location}: {message}", fix
    if "admission webhook" in message:
        return f"a policy of {request.server} refused to {request.action}: {message}", "comply with the policy"
    match = re.search(r'User "([^"]+)"', message)
    user = f"{match[1]} is" if match else "you are"
    # In argo/install, submitters can create and read Workflows; operators can do the rest.
    can_submit = request.verb in ("create", "get", "list", "watch") and request.resource != "pods/log"
    role = "argotune-submitter" if can_submit else "argotune-operator"
    fix = (
        f"ask a cluster admin to bind the Role {role} of argo/install/roles.yaml "
        f"(missing: the verb {request.verb} on {request.resource})"
    )
    return f"{user} not allowed to {request.action}{request.location}", fix


def _explain_not_found(request: ApiRequest, message: str, details: Mapping[str, Any]) -> tuple[str, str]:
    namespace = re.search(r'namespaces "([^"]+)" not found', message)
    if namespace:
        return f"namespace {namespace[1]} not found on {request.server}", "create it, or select another with -n"
    is_named = bool(details.get("name")) or bool(request.name and request.name in message)
    if not is_named and request.resource != "pods/log":
        kind = f"{request.resource}.argoproj.io"
        return f"{request.server} has no {kind}: Argo Workflows is not installed", INSTALL_ARGO
    return f"{request.subject} not found{request.location}", "list runs with argotune ls"


def _field_errors(message: str, details: Mapping[str, Any]) -> str:
    errors = [
        ": ".join(str(cause[key]) for key in ("field", "message") if cause.get(key))
        for cause in details.get("causes") or []
        if isinstance(cause, Mapping)
    ]
    return "; ".join(str(redact(error)) for error in errors) or message
