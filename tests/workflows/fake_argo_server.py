"""A fake Argo server: the paths of its swagger.md that argotune requests, over real HTTP."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from faults import Faults, FaultyHandler


class ArgoServer:
    """Workflows of one namespace; ``put`` changes one as the controller would."""

    def __init__(self, token: str = "Bearer s3cret") -> None:
        self.token = token
        self.faults = Faults()
        self.objects: dict[str, dict[str, dict[str, Any]]] = {}
        self.changed = threading.Condition()
        self.history: list[tuple[int, dict[str, Any]]] = []
        self.oldest = 0
        self.logs: dict[str, list[str]] = {}
        self.requests: list[tuple[str, str, Any]] = []
        server = self

        class Handler(_Handler):
            argo = server
            faults = server.faults

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.faults.close()
        self._http.shutdown()
        self._http.server_close()

    def put(self, document: dict[str, Any], collection: str = "workflows") -> dict[str, Any]:
        with self.changed:
            version = len(self.history) + 1
            new = {**document, "metadata": {**document["metadata"], "resourceVersion": str(version)}}
            self.objects.setdefault(collection, {})[new["metadata"]["name"]] = new
            self.history.append((version, new))
            self.changed.notify_all()
            return new

    def forget(self) -> None:
        with self.changed:
            self.oldest = len(self.history)


class _Handler(FaultyHandler, BaseHTTPRequestHandler):
    argo: ArgoServer

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = json.loads(body) if body else None
        address = urlsplit(self.path)
        query = dict(parse_qsl(address.query))
        self.argo.requests.append((self.command, address.path, content or query))
        if self.headers.get("Authorization") != self.argo.token:
            return self._send(401, {"code": 16, "message": "token not valid"})
        parts = address.path.removeprefix("/api/v1/").split("/")
        collection, rest = parts[0], parts[2:] if not parts[0].startswith("cluster") else parts[1:]
        if collection == "workflow-events":
            return self._events(query)
        existing = self.argo.objects.get(collection, {})
        if self.command == "POST":
            return self._create(collection, content)
        if not rest:
            return self._send(200, self._list(existing, query))
        if rest[0] not in existing:
            return self._send(404, {"code": 5, "message": f'workflows.argoproj.io "{rest[0]}" not found'})
        if rest[1:] == ["log"]:
            return self._stream([{"content": line, "podName": query["podName"]} for line in self._log(query)])
        if self.command == "PUT":
            return self._change(existing[rest[0]], rest[1], content)
        return self._send(200, existing[rest[0]])

    do_GET = do_POST = do_PUT = answer

    def _create(self, collection: str, content: dict[str, Any]) -> None:
        key = {"workflows": "workflow", "cron-workflows": "cronWorkflow"}.get(collection, "template")
        document = content[key]
        name = document["metadata"]["name"]
        if name in self.argo.objects.get(collection, {}):
            return self._send(409, {"code": 6, "message": f'workflows.argoproj.io "{name}" already exists'})
        dry = content.get("serverDryRun") or content.get("createOptions")
        return self._send(200, document if dry else self.argo.put(document, collection))

    def _list(self, existing: dict[str, dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
        selected = query.get("listOptions.fieldSelector", "").removeprefix("metadata.name=")
        items = [item for name, item in existing.items() if selected in ("", name)]
        # As the server's gateway does it: null for an empty list.
        return {"items": items or None, "metadata": {"resourceVersion": str(len(self.argo.history))}}

    def _log(self, query: dict[str, str]) -> list[str]:
        lines = self.argo.logs.get(query["podName"], [])
        tail = query.get("logOptions.tailLines")
        return lines[-int(tail) :] if tail else lines

    def _change(self, document: dict[str, Any], action: str, content: dict[str, Any]) -> None:
        if action in ("stop", "terminate"):
            changed = {**document, "spec": {**document["spec"], "shutdown": action.title()}}
        else:
            nodes = dict(document["status"]["nodes"])
            node_id = content["nodeFieldSelector"].removeprefix("id=")
            values = json.loads(content["outputParameters"] or "{}")
            parameters = [{"name": name, "value": value} for name, value in values.items()]
            nodes[node_id] = {**nodes[node_id], "phase": content["phase"], "outputs": {"parameters": parameters}}
            changed = {**document, "status": {**document["status"], "nodes": nodes}}
        self._send(200, self.argo.put(changed))

    def _events(self, query: dict[str, str]) -> None:
        seen = int(query["listOptions.resourceVersion"])
        self._begin()
        while True:
            with self.argo.changed:
                if seen < self.argo.oldest:
                    message = "too old resource version: 1 (2)"
                    self._line({"error": {"grpc_code": 13, "http_code": 500, "message": message}})
                    return self._line(None)
                news = [(version, item) for version, item in self.argo.history if version > seen]
                if not news and not self.argo.changed.wait(float(query["listOptions.timeoutSeconds"])):
                    return self._line(None)
            for version, item in news:
                seen = version
                self._line({"result": {"type": "MODIFIED", "object": item}})

    def _stream(self, results: list[dict[str, Any]]) -> None:
        self._begin()
        for result in results:
            self._line({"result": result})
        self._line(None)

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def _line(self, content: dict[str, Any] | None) -> None:
        if content is not None:
            self.wfile.write(json.dumps(content).encode() + b"\n")

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
