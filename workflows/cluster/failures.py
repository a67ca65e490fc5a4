"""What a cluster answered instead of what was request, in plain words.

A ``Status`` of Kubernetes (API conventions, "Response Status Kind") and the ``{code, message}`` of an Argo server
become one ``ApiFailure``, which says what was tried, why it failed, and what helps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steps.runtime.redaction import redact
from workflows.errors import ArgotuneError, InvalidInput

INSTALL_ARGO = (
    "install Argo Workflows 3.6 or later (https://argo-workflows.readthedocs.io/en/latest/installation/), then see "
    "argo/README.md; or choose another cluster: --context"
)
UNREACHABLE = "Unreachable"
"""Reason of a failure before anything was sent: who asks once is not made to wait for more tries."""
_VERBS = {"list": "list", "get": "read", "create": "create", "watch": "watch", "patch": "change"}


@dataclass(frozen=True)
class ApiRequest:
    """What was asked of the cluster, in Kubernetes' words."""

    verb: str
    resource: str
    """As RBAC calls it: ``workflows``, ``pods/log``."""
    place: str
    """Cluster or server, for people."""
    namespace: str = ""
    name: str = ""

    @property
    def subject(self) -> str:
        """``workflow oncall-x7k2m``, or ``workflows`` without a name."""
        return f"{self.resource.removesuffix('s')} {self.name}" if self.name else self.resource


class ApiFailure(ArgotuneError):
    """The cluster said no, or nothing."""

    def __init__(
        self,
        request: ApiRequest,
        status: int,
        what: str,
        fix: str = "",
        *,
        reason: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{what}\n    fix: {fix}" if fix else what)
        self.request = request
        self.status = status
        """HTTP status; 0 when there was no answer."""
        self.message = what
        self.fix = fix
        self.reason = reason
        self.retry_after = retry_after
        self.exit_code = InvalidInput.exit_code if status in (400, 404, 409, 413, 422) else ArgotuneError.exit_code

    @property
    def transient(self) -> bool:
        """Whether the same may go well a little later."""
        return self.status in (0, 408, 429) or self.status >= 500

    @property
    def gone(self) -> bool:
        """Whether the changes since a resource version are forgotten (410), so that a list must be made anew."""
        return self.status == 410 or self.reason in ("Gone", "Expired")


def failure_from_response(
    request: ApiRequest, status: int, body: Mapping[str, Any] | str, retry_after: float | None = None
) -> ApiFailure:
    """The failure that an answer other than 2xx tells of."""
    content = body if isinstance(body, Mapping) else {}
    message = str(redact(str(content.get("message") or (body if isinstance(body, str) else ""))))[:2000].strip()
    reason = str(content.get("reason") or "")
    details = content.get("details") if isinstance(content.get("details"), Mapping) else {}
    what, fix = _words(request, status, message, reason, details or {})
    return ApiFailure(request, status, what, fix, reason=reason, retry_after=retry_after)


def failure_from_connection(request: ApiRequest, error: BaseException) -> ApiFailure:
    """The failure of a connection; what was behind it decides the words."""
    text = str(redact(" <- ".join(str(part) for part in _chain(error))))
    what, fix, reason = f"{request.place} does not answer", "check the address and your network", ""
    if "certificate verify failed" in text.lower() or "CERTIFICATE" in text:
        what, reason = f"the certificate of {request.place} is not trusted", UNREACHABLE
        fix = "get the credentials of the cluster again, or give the authority that signed it"
    elif re.search(r"Connection refused|Errno 111", text):
        what, reason = f"nothing listens at {request.place}: connection refused", UNREACHABLE
        fix = "start the cluster (or the port-forward), or choose another: --context"
    elif re.search(r"Name or service not known|NameResolution|getaddrinfo|Temporary failure in name", text):
        what, reason = f"the name of {request.place} is not known", UNREACHABLE
        fix = "is the VPN up, or the cluster deleted? choose another: --context"
    elif re.search(r"timed? ?out", text, re.IGNORECASE):
        what, fix = f"{request.place} did not answer in time", "is the VPN up?"
    elif re.search(r"reset|aborted|broken pipe|IncompleteRead|Disconnected|ended early", text, re.IGNORECASE):
        what, fix = f"the connection to {request.place} broke", "try again"
    return ApiFailure(request, 0, what, fix, reason=reason)


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and len(found) < 8:
        found.append(error)
        reason = getattr(error, "reason", None)
        error = reason if isinstance(reason, BaseException) else error.__cause__ or error.__context__
    return found


def _words(request: ApiRequest, status: int, message: str, reason: str, details: Mapping[str, Any]) -> tuple[str, str]:
    doing = f"{_VERBS.get(request.verb, request.verb)} {request.subject}"
    where = f" in namespace {request.namespace}" if request.namespace else ""
    if status == 401:
        return f"{request.place} does not accept your credentials", "log in again (az login, kubelogin, ARGO_TOKEN...)"
    if status == 403:
        return _forbidden(request, message, doing, where)
    if status == 404:
        return _not_found(request, message, details, where)
    if status == 409:
        if reason == "AlreadyExists" or "already exists" in message:
            return f"{request.subject} exists already{where}", "give it another name, or delete the old one"
        return f"{request.subject} was changed by somebody else meanwhile", "try again"
    if status in (400, 422):
        what = f"{request.place} refuses to {doing}: {_causes(message, details)}"
        return what, "mend the document: argotune lint FILE"
    if status == 413 or "too large" in message.lower():
        what = f"{request.subject} is too large for the cluster: {message}"
        return what, "give the data in a volume or an image instead of a long list of URLs"
    if status == 429:
        return f"{request.place} has too much to do (429) to {doing}", "try again in a minute"
    said = f": {message}" if message else ""
    return f"{request.place} failed to {doing} ({status}){said}", "try again; see the cluster's health if it stays"


def _forbidden(request: ApiRequest, message: str, doing: str, where: str) -> tuple[str, str]:
    if "exceeded quota" in message:
        return f"the quota{where} is used up: {message}", "wait for other runs, or raise it (argo/install/quota.yaml)"
    if "admission webhook" in message:
        return f"a policy of {request.place} refuses to {doing}: {message}", "do as the policy says"
    user = re.search(r'User "([^"]+)"', message)
    who = user[1] if user else "you"
    role = "argotune-submitter" if _submitters(request) else "argotune-operator"
    fix = (
        f"who may give rights binds the Role {role} of argo/install/roles.yaml to it "
        f"(it lacks the verb {request.verb} on {request.resource})"
    )
    return f"{who} may not {doing}{where}", fix


def _submitters(request: ApiRequest) -> bool:
    """Whether who submits may do it by the Roles of argo/install; the rest is for who runs the place."""
    return request.verb in ("create", "get", "list", "watch") and request.resource != "pods/log"


def _not_found(request: ApiRequest, message: str, details: Mapping[str, Any], where: str) -> tuple[str, str]:
    missing = re.search(r'namespaces "([^"]+)" not found', message)
    if missing:
        return f"there is no namespace {missing[1]} on {request.place}", "make it, or choose another: -n"
    named = bool(details.get("name")) or bool(request.name and request.name in message)
    if not named and request.resource != "pods/log":
        return (
            f"{request.place} knows no {request.resource}.argoproj.io: Argo Workflows is not installed",
            INSTALL_ARGO,
        )
    return f"there is no {request.subject}{where}", "argotune ls lists those that are there"


def _causes(message: str, details: Mapping[str, Any]) -> str:
    causes = [
        ": ".join(str(cause[key]) for key in ("field", "message") if cause.get(key))
        for cause in details.get("causes") or []
        if isinstance(cause, Mapping)
    ]
    return "; ".join(str(redact(cause)) for cause in causes) or message
