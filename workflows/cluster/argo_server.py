"""The Workflows of a cluster by an Argo server (ARGO_SERVER, ARGO_TOKEN), as in Argo's command line.

Hera's ``WorkflowsService`` provides address, token and session. Its methods parse responses into models that reject
values which Argo allows (a number as a parameter) and drop unknown fields, and it has none for streams. Requests
therefore use its session, and responses are read as plain JSON.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import requests
from hera.workflows.service import WorkflowsService

from steps.runtime.retry import Sleep, retry_after
from workflows.cluster.backoff import retry_call
from workflows.cluster.failures import ApiFailure, ApiRequest, failure_from_connection, failure_from_response
from workflows.cluster.kubernetes_api import CONNECT, READ, SLACK, SUBMISSION
from workflows.cluster.workflows_api import MAIN_CONTAINER, PLURALS, Document, Event, Listing, Scope, Workflows

T = TypeVar("T")
# Argo: docs/swagger.md; the collection and the key of its body, by kind.
_COLLECTIONS = {
    "Workflow": ("workflows/{namespace}", "workflow"),
    "WorkflowTemplate": ("workflow-templates/{namespace}", "template"),
    "ClusterWorkflowTemplate": ("cluster-workflow-templates", "template"),
    "CronWorkflow": ("cron-workflows/{namespace}", "cronWorkflow"),
}
# gRPC codes (code.proto), which the server's gateway returns in streams, to HTTP status.
_GRPC = {3: 400, 5: 404, 6: 409, 7: 403, 8: 429, 16: 401}


class ArgoServerWorkflows(Workflows):
    """The Workflows of a namespace by an Argo server."""

    def __init__(self, service: WorkflowsService, namespace: str, sleep: Sleep = time.sleep) -> None:
        self._service = service
        self.namespace = namespace
        self.server = f"the Argo server {service.host.rstrip('/')}"
        self._sleep = sleep

    def create(self, document: Document, *, dry_run: bool = False) -> Document:
        """POST; after a lost response, check if the object exists before creating it again."""
        collection, key = _COLLECTIONS[document["kind"]]
        name = str(document["metadata"].get("name") or "")
        request = self._request("create", PLURALS[document["kind"]], name)
        body: Document = {key: document, "namespace": self.namespace}
        if dry_run:
            body |= {"serverDryRun": True} if key == "workflow" else {"createOptions": {"dryRun": ["All"]}}
        mark = (document["metadata"].get("annotations") or {}).get(SUBMISSION)
        attempts = 0

        def attempt() -> Document:
            nonlocal attempts
            attempts += 1
            try:
                return self._json(request, "post", collection, body=body)
            except ApiFailure as failure:
                if failure.status != 409 or attempts == 1 or not mark:
                    raise
                lookup = self._request("get", request.resource, name)
                existing = self._json(lookup, "get", f"{collection}/{quote(name)}")
                if (existing["metadata"].get("annotations") or {}).get(SUBMISSION) != mark:
                    raise
                return existing

        return self._retry_call(attempt)

    def get(self, name: str) -> Document:
        """GET."""
        request = self._request("get", "workflows", name)
        return self._retry_call(lambda: self._json(request, "get", f"workflows/{{namespace}}/{quote(name)}"))

    def list(self, scope: Scope) -> Listing:
        """GET; an empty namespace selects all."""
        request = self._request("list", "workflows")
        path = "workflows/" if scope.all_namespaces else "workflows/{namespace}"
        content = self._retry_call(lambda: self._json(request, "get", path, scope.query("listOptions.")))
        return Listing(content.get("items") or [], str((content.get("metadata") or {}).get("resourceVersion") or ""))

    def events(self, scope: Scope, version: str, seconds: int) -> Iterator[Event]:
        """Stream the server's events; it sends no bookmarks."""
        request = self._request("watch", "workflows")
        query = scope.query("listOptions.") | {
            "listOptions.resourceVersion": version,
            "listOptions.timeoutSeconds": str(seconds),
        }
        path = "workflow-events/" if scope.all_namespaces else "workflow-events/{namespace}"
        for result in self._results(request, path, query, seconds + SLACK):
            yield Event(str(result.get("type")), result.get("object") or {})

    def shut_down(self, name: str, *, terminate: bool) -> None:
        """PUT ``stop`` or ``terminate``."""
        request = self._request("patch", "workflows", name)
        path = f"workflows/{{namespace}}/{quote(name)}/{'terminate' if terminate else 'stop'}"
        body = {"name": name, "namespace": self.namespace}
        self._retry_call(lambda: self._json(request, "put", path, body=body))

    def set_outputs(self, name: str, node_id: str, values: Mapping[str, str], message: str) -> None:
        """PUT ``set``: the values and the phase Succeeded."""
        request = self._request("patch", "workflows", name)
        body = {
            "name": name,
            "namespace": self.namespace,
            "nodeFieldSelector": f"id={node_id}",
            "outputParameters": json.dumps(dict(values)) if values else "",
            "message": message,
            "phase": "Succeeded",
        }
        self._json(request, "put", f"workflows/{{namespace}}/{quote(name)}/set", body=body)

    def log(
        self, name: str, pod: str, *, follow: bool = False, since: str = "", tail: int | None = None
    ) -> Iterator[str]:
        """Stream the server's log entries of a pod's main container."""
        request = self._request("get", "pods/log", pod)
        query = {"podName": pod, "logOptions.container": MAIN_CONTAINER, "logOptions.timestamps": "true"}
        query |= {"logOptions.follow": "true"} if follow else {}
        query |= {"logOptions.tailLines": str(tail)} if tail is not None else {}
        path = f"workflows/{{namespace}}/{quote(name)}/log"
        for entry in self._results(request, path, query, 600 if follow else READ):
            line = str(entry.get("content", ""))
            # The server's `sinceTime` takes seconds and nanoseconds separately, and loses lines of the same second.
            if not since or line.partition(" ")[0] >= since:
                yield line

    def _retry_call(self, call: Callable[[], T]) -> T:
        return retry_call(call, self._sleep)

    def _request(self, verb: str, resource: str, name: str = "") -> ApiRequest:
        return ApiRequest(verb, resource, self.server, self.namespace, name)

    def _json(
        self, request: ApiRequest, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None
    ) -> Document:
        with self._send(request, method, path, query or {}, body, READ) as response:
            try:
                content = response.json()
            except ValueError:
                raise failure_from_connection(request, ConnectionError("the response ended early")) from None
            return content if isinstance(content, dict) else {}

    def _results(self, request: ApiRequest, path: str, query: Mapping[str, str], read: float) -> Iterator[Document]:
        """Yield the results of a stream: one JSON object per line, with a ``result`` or an ``error``."""
        with self._send(request, "get", path, query, None, read) as response:
            for line in response.iter_lines(65536):
                text = line.removeprefix(b"data: ").strip()
                if not text:
                    continue
                try:
                    entry = json.loads(text)
                except ValueError:
                    raise failure_from_connection(request, ConnectionError("the response ended early")) from None
                if entry.get("error"):
                    raise _stream_failure(request, entry["error"])
                yield entry.get("result") or {}

    @contextmanager
    def _send(
        self, request: ApiRequest, method: str, path: str, query: Mapping[str, str], body: Any, read: float
    ) -> Iterator[requests.Response]:
        headers = {"Authorization": self._service.token} if self._service.token else {}
        response = None
        try:
            response = self._service.session.request(
                method,
                f"{self._service.host}api/v1/{path.format(namespace=quote(self.namespace))}",
                params=query,
                json=body,
                headers=headers,
                verify=self._service.verify_ssl,
                timeout=(CONNECT, read),
                stream=True,
            )
            if not response.ok:
                body = _error_body(response)
                raise failure_from_response(request, response.status_code, body, retry_after(response))
            yield response
        except requests.RequestException as error:
            raise failure_from_connection(request, error) from None
        finally:
            if response is not None:
                response.close()


def connect(namespace: str) -> ArgoServerWorkflows:
    """Return the Workflows of ARGO_SERVER (a URL, or ``host:port`` with ARGO_SECURE and ARGO_BASE_HREF)."""
    address = os.environ["ARGO_SERVER"]
    secure = os.environ.get("ARGO_SECURE", "true") != "false"
    host = address if "://" in address else f"{'https' if secure else 'http'}://{address}"
    base = os.environ.get("ARGO_BASE_HREF", "").strip("/")
    service = WorkflowsService(
        host=f"{host.rstrip('/')}/{base + '/' if base else ''}",
        verify_ssl=os.environ.get("ARGO_INSECURE_SKIP_VERIFY") != "true",
        token=os.environ.get("ARGO_TOKEN") or None,
        namespace=namespace,
    )
    return ArgoServerWorkflows(service, namespace or "default")


def _error_body(response: requests.Response) -> Any:
    try:
        content = response.json()
    except ValueError:
        return response.text
    return content if isinstance(content, dict) else str(content)


def _stream_failure(request: ApiRequest, error: Mapping[str, Any]) -> ApiFailure:
    message = str(error.get("message") or "")
    status = int(error.get("http_code") or _GRPC.get(int(error.get("grpc_code") or error.get("code") or 0), 500))
    if "too old resource version" in message or "resourceVersion" in message:
        status = 410
    return failure_from_response(request, status, {"message": message})
