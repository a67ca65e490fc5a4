"""Client of the Kubernetes API: objects are plain dicts, temporary failures are retried.

Every call can be repeated: a creation whose response was lost ends as ``AlreadyExists``, and the caller checks the
owner.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from steps.kubernetes import connection
from steps.kubernetes.connection import APPLY_PATCH, JSON, MERGE_PATCH, Connection
from steps.kubernetes.errors import AlreadyExists, ApiError, Conflict, Forbidden, KindNotInstalled
from steps.runtime import connection_failure
from steps.runtime.errors import BadInput, StepError, TransientError
from steps.runtime.json_text import parse_json
from steps.runtime.retry import Response, RetryPolicy, Sleep, retry_after, retry_call

Document = dict[str, Any]
T = TypeVar("T")
MANAGER = "argotune"
"""Field manager of server-side apply."""
TIMEOUT = (10.0, 30.0)
"""Seconds to connect, and between bytes of a response."""
RETRY = RetryPolicy(max_attempts=6)
PAGE = 200
MAX_MESSAGE_CHARS = 2000
MAX_PAGES = 5000
"""Pages of a list: a million objects."""


@dataclass(frozen=True)
class Kind:
    """A kind of the API: its version and its name in paths."""

    api_version: str
    plural: str
    cluster_wide: bool = False

    @property
    def qualified(self) -> str:
        """Name in messages and RBAC rules: ``nodepools.karpenter.sh``."""
        group = self.api_version.rpartition("/")[0]
        return f"{self.plural}.{group}" if group else self.plural


class KubernetesClient:
    """Objects of one cluster.

    Every method raises ``BadInput`` for credentials, permissions and invalid objects, ``ApiError`` for other
    rejections, and ``StepError`` after the last attempt.
    """

    def __init__(self, connection: Connection, sleep: Sleep = time.sleep, retry: RetryPolicy | None = None) -> None:
        self.namespace = connection.namespace
        """Default namespace."""
        self._connection = connection
        self._sleep = sleep
        self._policy = retry

    def with_retry(self, policy: RetryPolicy) -> KubernetesClient:
        """Return a client of the same cluster with another number of attempts."""
        return KubernetesClient(self._connection, self._sleep, policy)

    @property
    def host(self) -> str:
        """Name or address of the API server."""
        return self._connection.host

    def check_reachable(self) -> None:
        """Read the version of the API server, which every user can.

        Raises:
            BadInput, StepError: the API server does not respond, or rejects the credentials.
        """

        def call() -> None:
            status, text, response = self._send("GET", "/version", {}, None, "")
            if status == 401 or status >= 500:
                raise _failure("get", "/version", PODS, status, text, response)

        self._retry(call)

    def has_kind(self, kind: Kind) -> bool:
        """Return True if the cluster serves a kind, by API discovery, which every user can read by default.

        Raises:
            BadInput, StepError: the API server does not respond, or rejects the credentials.
        """
        path = f"/apis/{kind.api_version}"

        def call() -> bool:
            status, text, response = self._send("GET", path, {}, None, "")
            if status in (403, 404):
                return False
            if status != 200:
                raise _failure("get", path, kind, status, text, response)
            resources = _document(text, path).get("resources") or []
            return any(isinstance(item, dict) and item.get("name") == kind.plural for item in resources)

        return self._retry(call)

    def get(self, kind: Kind, name: str, namespace: str = "") -> Document | None:
        """Return an object; None if it does not exist.

        Raises:
            KindNotInstalled: the cluster does not know the kind.
        """
        return self._call("get", "GET", kind, name, namespace, allow_missing=True)

    def list(self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Document]:
        """Return all objects that match the selectors, read in pages.

        Raises:
            KindNotInstalled: the cluster does not know the kind.
        """
        query = {"limit": str(PAGE), "labelSelector": labels, "fieldSelector": fields}
        items: list[Document] = []
        token = ""
        for _ in range(MAX_PAGES):
            page_query = query | ({"continue": token} if token else {})
            try:
                page = self._call("list", "GET", kind, "", namespace, query=page_query) or {}
            except ApiError as error:
                if error.status != 410 or not token:
                    raise
                # The pages have expired on the server: start again.
                items, token = [], ""
                continue
            items += _objects(page, kind)
            token = _continue_token(page)
            if not token:
                return items
        raise ApiError(200, "", f"the list of {kind.qualified} has more than {MAX_PAGES} pages")

    def create(self, kind: Kind, body: Document, namespace: str = "", *, dry_run: bool = False) -> Document:
        """Create an object; ``dry_run``: only return the result.

        Raises:
            AlreadyExists: one of this name exists, possibly from an earlier attempt.
        """
        query = {"dryRun": "All"} if dry_run else {}
        return self._call("create", "POST", kind, "", namespace, query=query, body=body) or {}

    def apply(self, kind: Kind, body: Document, namespace: str = "", *, force: bool = True) -> Document:
        """Server-side apply: create the object, or set the fields of ``body`` and drop those applied before.

        Raises:
            Conflict: without ``force``, another manager owns one of the fields.
        """
        query = {"fieldManager": MANAGER, "force": str(force).lower()}
        name = body["metadata"]["name"]
        return self._call("patch", "PATCH", kind, name, namespace, query=query, body=body, content=APPLY_PATCH) or {}

    def patch(
        self, kind: Kind, name: str, body: Document, namespace: str = "", *, subresource: str = ""
    ) -> Document | None:
        """Apply a merge patch to an object or its subresource; return None if the object does not exist."""
        query = {"fieldManager": MANAGER}
        return self._call(
            "patch",
            "PATCH",
            kind,
            name,
            namespace,
            query=query,
            body=body,
            content=MERGE_PATCH,
            subresource=subresource,
            allow_missing=True,
        )

    def delete(self, kind: Kind, name: str, namespace: str = "", *, uid: str = "", policy: str = "Background") -> bool:
        """Delete an object, with ``uid`` only that one; return True if it existed.

        Raises:
            Conflict: the object of this name has another uid.
        """
        options: Document = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
        if uid:
            options["preconditions"] = {"uid": uid}
        return self._call("delete", "DELETE", kind, name, namespace, body=options, allow_missing=True) is not None

    def log(self, pod: str, container: str, namespace: str = "", *, lines: int = 40, previous: bool = False) -> str:
        """Return the last log lines of a container; empty if there are none yet, or the pod is gone."""
        query = {"container": container, "tailLines": str(lines), "previous": str(previous).lower()}
        path = self._path(PODS, pod, namespace, "log")

        def call() -> str:
            status, text, response = self._send("GET", path, query, None, "")
            if status in (400, 404):
                return ""
            if status != 200:
                raise _failure("get", f"the log of pod {pod}", PODS, status, text, response)
            return text

        return self._retry(call)

    def open_port(self, pod: str, port: int, namespace: str = "") -> Any:
        """Return a socket that is connected to a port of a pod, through the API server."""
        return self._connection.open_port(pod, namespace or self.namespace, port)

    def _call(
        self,
        verb: str,
        method: str,
        kind: Kind,
        name: str,
        namespace: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Document | None = None,
        content: str = JSON,
        subresource: str = "",
        allow_missing: bool = False,
    ) -> Document | None:
        path = self._path(kind, name, namespace, subresource)
        if body is not None and verb in ("create", "patch"):
            name = name or body["metadata"].get("name", "")
        label = f"{kind.qualified} {name}".strip()

        def call() -> Document | None:
            status, text, response = self._send(method, path, query or {}, body, content)
            if 200 <= status < 300:
                return _document(text, label)
            if status == 404 and allow_missing and _is_of_object(text):
                return None
            raise _failure(verb, label, kind, status, text, response)

        return self._retry(call)

    def _retry(self, call: Callable[[], T]) -> T:
        policy = self._policy or RETRY.in_pod()
        try:
            return retry_call(call, policy, log=_log, sleep=self._sleep)
        except TransientError as error:
            host = self._connection.url
            raise StepError(
                f"the Kubernetes API at {host}: {error.message} ({policy.max_attempts} attempts)",
                "check that the cluster is healthy, then run the step again",
            ) from None

    def _send(
        self, method: str, path: str, query: Mapping[str, str], body: Document | None, content: str
    ) -> tuple[int, str, Any]:
        """Send one request; return status, body and response."""
        from kubernetes.client import ApiException
        from kubernetes.config import ConfigException
        from urllib3.exceptions import HTTPError

        request = self._connection.open(method, path, query, body, content_type=content, timeout=TIMEOUT)
        try:
            with request as response:
                return response.status, (response.data or b"").decode(errors="replace"), response
        except (ApiException, ConfigException) as error:  # TLS, or no credentials; statuses raise nothing
            raise BadInput(
                f"no trusted connection to the Kubernetes API at {self._connection.url}:"
                f" {getattr(error, 'reason', None) or error}",
                "check the certificate authority in the kubeconfig, or of the service account",
            ) from None
        except (HTTPError, OSError) as error:
            failure = connection_failure.classify(error)
            message = f"no complete response to {method} {path} ({failure.reason})"
            if failure.is_permanent:
                raise BadInput(f"the Kubernetes API at {self._connection.url}: {message}", failure.fix) from None
            raise TransientError(message) from None

    def _path(self, kind: Kind, name: str, namespace: str, subresource: str = "") -> str:
        root = "apis" if "/" in kind.api_version else "api"
        scope = [] if kind.cluster_wide else ["namespaces", namespace or self.namespace]
        parts = [root, *kind.api_version.split("/"), *scope, kind.plural, *filter(None, (name, subresource))]
        return "/" + "/".join(quote(part, safe="") for part in parts)


PODS = Kind("v1", "pods")
SERVICES = Kind("v1", "services")
EVENTS = Kind("v1", "events")
CONFIG_MAPS = Kind("v1", "configmaps")
NODES = Kind("v1", "nodes", cluster_wide=True)
NODE_POOLS = Kind("karpenter.sh/v1", "nodepools", cluster_wide=True)
NODE_CLAIMS = Kind("karpenter.sh/v1", "nodeclaims", cluster_wide=True)
WORKFLOWS = Kind("argoproj.io/v1alpha1", "workflows")


def connect(sleep: Sleep = time.sleep) -> KubernetesClient:
    """Connect to the cluster of ``$KUBECONFIG``, of this pod, or of ``~/.kube/config``, in this order.

    Raises:
        BadInput: none of them is usable.
    """
    from kubernetes import config

    in_pod = connection.has_service_account()
    try:
        if in_pod:
            return KubernetesClient(connection.from_service_account(), sleep)
        path = connection.kubeconfig_path()
        current: Document = config.list_kube_config_contexts(path)[1]
        return KubernetesClient(connection.from_kubeconfig(path, current), sleep)
    except Exception as error:  # the loader raises KeyError, TypeError and others for an incomplete file
        source = "the service account of this pod" if in_pod else "a kubeconfig"
        raise BadInput(
            f"cannot use {source}: {connection.describe_problem(error)}",
            "mount the service account's token" if in_pod else "set KUBECONFIG, or run this in the cluster",
        ) from None


def _log(line: str) -> None:
    print(f"Kubernetes API: {line}", flush=True)


def _document(text: str, label: str) -> Document:
    try:
        document = parse_json(text)
    except ValueError:
        raise TransientError(f"the response for {label} is not JSON") from None
    if not isinstance(document, dict):
        raise TransientError(f"the response for {label} is not an object")
    return document


def _objects(page: Document, kind: Kind) -> list[Document]:
    items = page.get("items") or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ApiError(200, "", f"the response for {kind.qualified} is not a list of objects")
    return items


def _continue_token(page: Document) -> str:
    metadata = page.get("metadata")
    token = metadata.get("continue") if isinstance(metadata, dict) else ""
    return token if isinstance(token, str) else ""


def _is_of_object(text: str) -> bool:
    """Return True if a 404 is about an object, not about the kind or the path."""
    try:
        return bool((parse_json(text).get("details") or {}).get("name"))
    except (ValueError, AttributeError):
        return False


def _failure(verb: str, label: str, kind: Kind, status: int, text: str, response: Response) -> StepError:
    """Return the error of a response other than 2xx."""
    try:
        content = parse_json(text)
        message, reason = str(content.get("message") or "")[:MAX_MESSAGE_CHARS], str(content.get("reason") or "")
    except (ValueError, AttributeError):
        message, reason = text.strip()[:200], ""
    message = f"cannot {verb} {label}: {message or f'status {status}'}"
    if connection_failure.is_transient_status(status):
        return TransientError(message, retry_after=retry_after(response))
    if status == connection_failure.PROXY_LOGIN:
        failure = connection_failure.from_proxy(status)
        return BadInput(f"cannot {verb} {label}: {failure.reason}", failure.fix)
    if status == 401:
        return BadInput(f"{message} (401: the cluster rejects the credentials)", "log in to the cluster again")
    if status == 403:
        return Forbidden(message, "grant the role of the step: argo/install/roles.yaml, docs/NODES.md")
    if status == 404 and not _is_of_object(text):
        return KindNotInstalled(
            f"the cluster has no {kind.qualified}", f"install the controller that defines {kind.qualified}"
        )
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists(status, reason, message)
    if status == 409:
        return Conflict(status, reason, message, "another client changes it too; run the step again")
    if status in (400, 422):
        return BadInput(message, "correct the setting that the message names")
    return ApiError(status, reason, message)
