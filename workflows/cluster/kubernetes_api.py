"""The Workflows of a cluster by the Kubernetes API.

The official client provides the credentials (exec plugins, certificates, proxies). Requests are sent directly: the
client has no timeouts and does not distinguish a dropped watch from one that ended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from steps.kubernetes import connection
from steps.kubernetes.connection import JSON, MERGE_PATCH, Connection
from steps.runtime import retry
from steps.runtime.json_text import parse_json
from steps.runtime.redaction import redact
from steps.runtime.retry import Sleep, retry_after
from workflows.cluster.backoff import RETRY, retry_call
from workflows.cluster.failures import ApiFailure, ApiRequest, failure_from_connection, failure_from_response
from workflows.cluster.nodes import pack_nodes, read_nodes, resume_node
from workflows.cluster.workflows_api import (
    GROUP,
    MAIN_CONTAINER,
    PLURALS,
    VERSION,
    Document,
    Event,
    Listing,
    Scope,
    Workflows,
)
from workflows.errors import InvalidInput, Problem, use_one_of

T = TypeVar("T")
CONNECT, READ = 10, 60
"""Timeouts of a request in seconds."""
SLACK = 30
"""Additional seconds in which a watch must end."""
PAGE = 200
SUBMISSION = "argotune.dev/submission"
"""Annotation that identifies a created object when the response was lost."""


class KubernetesWorkflows(Workflows):
    """The Workflows of a namespace by the Kubernetes API."""

    def __init__(self, connection: Connection, namespace: str, server: str, sleep: Sleep = time.sleep) -> None:
        self._connection = connection
        self.namespace = namespace
        self.server = server
        self._sleep = sleep

    def create(self, document: Document, *, dry_run: bool = False) -> Document:
        """POST; after a lost response, check if the object exists before creating it again."""
        plural = PLURALS[document["kind"]]
        metadata = document["metadata"]
        name = str(metadata.get("name") or "")
        request = self._request("create", plural, name)
        path = self._objects(plural)
        query = {"dryRun": "All"} if dry_run else {}
        mark = (metadata.get("annotations") or {}).get(SUBMISSION)
        attempts = 0

        def attempt() -> Document:
            nonlocal attempts
            attempts += 1
            try:
                return self._json(request, "POST", path, query, document)
            except ApiFailure as failure:
                if failure.status != 409 or attempts == 1 or not mark:
                    raise
                existing = self._json(self._request("get", plural, name), "GET", f"{path}/{name}")
                if (existing["metadata"].get("annotations") or {}).get(SUBMISSION) != mark:
                    raise
                return existing

        return self._retry_call(attempt)

    def get(self, name: str) -> Document:
        """GET."""
        return self._get("workflows", name)

    def list(self, scope: Scope) -> Listing:
        """GET, page by page."""
        items: list[Document] = []
        token = ""
        while True:
            query = scope.query() | {"limit": str(PAGE)} | ({"continue": token} if token else {})
            path = self._objects("workflows", scope)
            request = self._request("list", "workflows")
            page = self._retry_call(lambda: self._json(request, "GET", path, query))  # noqa: B023
            items += page.get("items") or []
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return Listing(items, str((page.get("metadata") or {}).get("resourceVersion") or ""))

    def events(self, scope: Scope, version: str, seconds: int) -> Iterator[Event]:
        """Watch with bookmarks, which keep the version recent while nothing changes."""
        request = self._request("watch", "workflows")
        query = scope.query() | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        for line in self._lines(request, self._objects("workflows", scope), query, seconds + SLACK):
            event = _parse(line, request)
            if event.get("type") == "ERROR":
                status = event.get("object") or {}
                raise failure_from_response(request, int(status.get("code") or 500), status)
            yield Event(str(event.get("type")), event.get("object") or {})

    def shut_down(self, name: str, *, terminate: bool) -> None:
        """PATCH ``spec.shutdown``, as ``argo stop`` and ``argo terminate`` do."""
        self._patch(name, {"spec": {"shutdown": "Terminate" if terminate else "Stop"}})

    def annotate(self, name: str, annotations: Mapping[str, str]) -> None:
        """PATCH the annotations of a Workflow."""
        self._patch(name, {"metadata": {"annotations": dict(annotations)}})

    def set_outputs(self, name: str, node_id: str, values: Mapping[str, str], message: str) -> None:
        """PATCH the node, as ``argo node set`` does; retried if the controller changed it at the same time."""
        request = self._request("patch", "workflows", name)

        def attempt() -> None:
            workflow = self.get(name)
            nodes, reason = read_nodes(workflow)
            if node_id not in nodes:
                raise ApiFailure(request, 500, f"cannot read the steps of {name}: {reason or 'the node was replaced'}")
            node = resume_node(nodes[node_id], values, message)
            version = {"resourceVersion": workflow["metadata"]["resourceVersion"]}
            self._patch(name, {"metadata": version, "status": pack_nodes(workflow, nodes, node)})

        retry.retry_call(attempt, RETRY, retry_if=lambda error: getattr(error, "status", 0) == 409, sleep=self._sleep)

    def log(
        self, name: str, pod: str, *, follow: bool = False, since: str = "", tail: int | None = None
    ) -> Iterator[str]:
        """GET the log of a pod's main container."""
        request = self._request("get", "pods/log", pod)
        query = {"container": MAIN_CONTAINER, "timestamps": "true"}
        query |= {"follow": "true"} if follow else {}
        query |= {"sinceTime": since} if since else {}
        query |= {"tailLines": str(tail)} if tail is not None else {}
        path = f"/api/v1/namespaces/{quote(self.namespace)}/pods/{quote(pod)}/log"
        # A step can be silent for long; keep-alive or the next attempt detects a dead connection.
        for line in self._lines(request, path, query, 600 if follow else READ):
            yield line.decode(errors="replace")

    def find(self, api_version: str, resource: str, name: str = "", *, cluster_wide: bool = False) -> Document | None:
        """Return an object of any kind, or their list without a name; None if it does not exist."""
        request = ApiRequest(
            "get" if name else "list", resource, self.server, "" if cluster_wide else self.namespace, name
        )
        root = "apis" if "/" in api_version else "api"
        where = "" if cluster_wide else f"namespaces/{quote(self.namespace)}/"
        path = f"/{root}/{api_version}/{where}{resource}{'/' + quote(name) if name else ''}"
        try:
            return self._retry_call(lambda: self._json(request, "GET", path))
        except ApiFailure as failure:
            if failure.status == 404:
                return None
            raise

    def _patch(self, name: str, change: Document) -> Document:
        request = self._request("patch", "workflows", name)
        path = f"{self._objects('workflows')}/{quote(name)}"
        return self._retry_call(lambda: self._json(request, "PATCH", path, {}, change))

    def _get(self, plural: str, name: str) -> Document:
        request = self._request("get", plural, name)
        return self._retry_call(lambda: self._json(request, "GET", f"{self._objects(plural)}/{quote(name)}"))

    def _retry_call(self, call: Callable[[], T]) -> T:
        return retry_call(call, self._sleep)

    def _request(self, verb: str, resource: str, name: str = "") -> ApiRequest:
        return ApiRequest(verb, resource, self.server, self.namespace, name)

    def _objects(self, plural: str, scope: Scope | None = None) -> str:
        all_namespaces = plural.startswith("cluster") or (scope is not None and scope.all_namespaces)
        where = "" if all_namespaces else f"namespaces/{quote(self.namespace)}/"
        return f"/apis/{GROUP}/{VERSION}/{where}{plural}"

    def _json(
        self, request: ApiRequest, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None
    ) -> Document:
        with self._send(request, method, path, query or {}, body, READ) as response:
            return _parse(response.data, request)

    def _lines(self, request: ApiRequest, path: str, query: Mapping[str, str], read: float) -> Iterator[bytes]:
        with self._send(request, "GET", path, query, None, read) as response:
            rest = b""
            for chunk in response.stream(65536):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole
            if rest:
                yield rest

    @contextmanager
    def _send(
        self, request: ApiRequest, method: str, path: str, query: Mapping[str, str], body: Any, read: float
    ) -> Iterator[Any]:
        """Yield a successful response to read; every failure, also while reading, becomes an ``ApiFailure``."""
        from kubernetes.client.exceptions import ApiException
        from kubernetes.config import ConfigException
        from urllib3.exceptions import HTTPError

        content_type = MERGE_PATCH if method == "PATCH" else JSON
        exchange = self._connection.open(method, path, query, body, content_type=content_type, timeout=(CONNECT, read))
        try:
            with exchange as response:
                if not 200 <= response.status < 300:
                    raise failure_from_response(
                        request, response.status, _status(response.data), retry_after(response)
                    )
                yield response
        except ConfigException as error:
            fix = "log in again: the kubeconfig uses a credential plugin"
            raise ApiFailure(request, 401, f"no credentials for {self.server}: {redact(str(error))}", fix) from None
        except (ApiException, HTTPError, OSError) as error:
            raise failure_from_connection(request, error) from None


WRITE_AGAIN = "correct it, or write it again (az aks get-credentials --name CLUSTER --resource-group GROUP)"


class NoKubeconfig(InvalidInput):
    """No kubeconfig exists."""

    @property
    def file(self) -> str:
        """The missing file."""
        return str(self.problems[0].file)


def connect(
    kubeconfig: str | None, context: str | None, namespace: str, sleep: Sleep = time.sleep
) -> KubernetesWorkflows:
    """Return the Workflows of the cluster of a kubeconfig (``--kubeconfig``, ``$KUBECONFIG``, ``~/.kube/config``).

    In a pod without any of these, use the pod's service account. ``namespace`` overrides that of the context.

    Raises:
        NoKubeconfig: the kubeconfig does not exist.
        InvalidInput: it cannot be read, or has no such context.
    """
    if not kubeconfig and connection.has_service_account():
        pod = connection.from_service_account()
        return KubernetesWorkflows(pod, namespace or pod.namespace, "this cluster", sleep)
    path = kubeconfig or connection.kubeconfig_path()
    selected = _context(path, context)
    name = selected["name"]
    try:
        connected = connection.from_kubeconfig(path, selected)
    except Exception as error:  # the loader raises KeyError, TypeError and OSError for an incomplete file
        message = f"cannot use the context {name!s:.100}: {connection.describe_problem(error)}"
        raise InvalidInput(Problem(message, file=path, fix=WRITE_AGAIN)) from None
    server = f"{connected.url} (context {name})"
    return KubernetesWorkflows(connected, namespace or connected.namespace, server, sleep)


def _context(path: str, name: str | None) -> Document:
    from kubernetes import config

    try:
        contexts, current = config.list_kube_config_contexts(path)
    except config.ConfigException as error:
        if any(Path(part).expanduser().exists() for part in path.split(os.pathsep)):
            message = f"invalid kubeconfig: {connection.describe_problem(error)}"
            raise InvalidInput(Problem(message, file=path, fix=WRITE_AGAIN)) from None
        fix = (
            "create one (az aks get-credentials --name CLUSTER --resource-group GROUP), set ARGO_SERVER and "
            "ARGO_TOKEN, or run locally without a cluster: argotune run FILE"
        )
        raise NoKubeconfig(Problem("kubeconfig not found", file=path, fix=fix)) from None
    except Exception as error:  # YAML errors, and the loader's errors for an incomplete file
        message = f"cannot be read: {connection.describe_problem(error)}"
        raise InvalidInput(Problem(message, file=path, fix=WRITE_AGAIN)) from None
    by_name = {context["name"]: context for context in contexts}
    if name and name not in by_name:
        fix = use_one_of(by_name, f"{path} has no context; {WRITE_AGAIN}")
        raise InvalidInput(Problem(f"context {name} not found", "--context", fix=fix))
    return dict(by_name[name] if name else current)


def _parse(data: bytes, request: ApiRequest) -> Document:
    try:
        content = parse_json(data)
    except ValueError:
        raise failure_from_connection(request, ConnectionError("the response ended early")) from None
    return content if isinstance(content, dict) else {"value": content}


def _status(data: bytes) -> Any:
    try:
        content = parse_json(data)
    except ValueError:
        return data.decode(errors="replace")
    return content if isinstance(content, dict) else str(content)
