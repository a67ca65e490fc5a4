"""A fake Kubernetes API over real HTTP, for the kubernetes client, kubectl, and processes under test.

    with KubernetesServer() as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig", user="rollout")))
        cluster.controllers.append(...)         # who reacts to changes, as a cluster's controllers do
        cluster.faults.fail("timeout", 2)       # tests/faults.py
        cluster.calls                           # what was asked for, in words of RBAC

What it does as the real one: versions and conflicts, generations, status subresources, server-side apply, selectors,
pages, watches with bookmarks, 410 for forgotten versions, finalizers, garbage collection. It schedules nothing.
"""

# PyPI's kmock 0.8 was tried first: no server-side apply, no conflicts, selectors, pages, bookmarks or 410; so our own.

from __future__ import annotations

import json
import secrets
import ssl
import threading
from collections.abc import Callable, Collection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import kubernetes_server_requests as requests
import yaml
from faults import Faults, FaultyHandler
from kubernetes_server_resources import Call, NoSuchGroup, Object, Refused, from_status
from kubernetes_server_store import Store


class KubernetesServer(Store):
    """A cluster's API at ``url``; ``put``, ``read`` and ``all`` are for tests, past HTTP."""

    def __init__(self, namespaces: Collection[str] = ("default", "kube-system", "argotune")) -> None:
        super().__init__()
        self.faults = Faults()
        self.calls: list[Call] = []
        self.every_call: list[Callable[[Call], None]] = []
        """Called before a call is performed; it may raise ``Refused``, or change what is there (progress by polls)."""
        self.forbidden: set[tuple[str, str]] = set()
        """Verb and resource (``create``, ``pods/eviction``) that are answered with 403."""
        self.logs: dict[tuple[str, str, str], str] = {}
        """Text by namespace, pod and container."""
        self.closing = False
        self.watch_round = 0
        self._tokens: dict[str, str] = {}
        self._certificate: Path | None = None
        server = self

        class Handler(_Handler):
            cluster = server
            faults = server.faults

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        for name in namespaces:
            metadata = {"name": name, "labels": {"kubernetes.io/metadata.name": name}}
            self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata, "status": {"phase": "Active"}})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.faults.close()
        self.closing = True
        self.end_watches()
        self._http.shutdown()
        self._http.server_close()

    def use_tls(self, key: Path, certificate: Path) -> None:
        """Speak https from now on, with a certificate that its clients are to trust."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self.url = self.url.replace("http:", "https:")
        self._certificate = certificate

    def token(self, user: str) -> str:
        """A bearer token by which calls are those of ``user``."""
        token = secrets.token_urlsafe(24)
        self._tokens[token] = user
        return token

    def kubeconfig(self, path: Path, *, user: str = "tester", namespace: str = "argotune") -> Path:
        """Write a kubeconfig for the kubernetes client and for kubectl."""
        trusted = {"certificate-authority": str(self._certificate)} if self._certificate else {}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": {"server": self.url, **trusted}}],
            "users": [{"name": user, "user": {"token": self.token(user)}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user, "namespace": namespace}}],
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def user_of(self, header: str) -> str:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or token not in self._tokens:
            raise Refused(401, "Unauthorized", "Unauthorized")
        return self._tokens[token]

    def end_watches(self) -> None:
        """Let all watches that are open end now, as after their timeout."""
        with self.changed:
            self.watch_round += 1
            self.changed.notify_all()

    def verbs(self, user: str | None = None) -> set[tuple[str, str, str]]:
        """Verb, group and resource (with its subresource) of all calls so far, as rules of RBAC name them."""
        return {
            (call.verb, call.group, f"{call.resource}/{call.subresource}".rstrip("/"))
            for call in self.calls
            if user in (None, call.user)
        }


class _Handler(FaultyHandler, BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    cluster: KubernetesServer

    def call_name(self) -> str:
        try:
            return str(requests.described(self.command, self._path(), self._query(), {}))
        except Refused:
            return f"{self.command} {self._path()}"

    def fault_body(self, status: int) -> bytes:
        return json.dumps(from_status(status).status()).encode()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            call = self._call(body)
            kind = self.headers.get("Content-Type", "").partition(";")[0]
            if call.verb == "watch":
                self._watch(call)
            else:
                with self.cluster.changed:
                    status, content = requests.perform(self.cluster, self.command, call, kind)
                    text = content if isinstance(content, str) else json.dumps(content)
                self._send(status, text, plain=isinstance(content, str))
        except Refused as refused:
            self._send(refused.code, json.dumps(refused.status()))
        except NoSuchGroup:
            self._send(404, "404 page not found\n", plain=True)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def _call(self, body: bytes) -> Call:
        user = self.cluster.user_of(self.headers.get("Authorization", ""))
        try:
            content = _read(body) if body else None
        except yaml.YAMLError as error:
            raise Refused(400, "BadRequest", f"the body can't be read: {error}") from None
        call = requests.described(self.command, self._path(), self._query(), content)
        call.user, call.user_agent = user, self.headers.get("User-Agent", "")
        self.cluster.calls.append(call)
        resource = f"{call.resource}/{call.subresource}".rstrip("/")
        if (call.verb, resource) in self.cluster.forbidden:
            what = f'{resource} is forbidden: User "{user}" cannot {call.verb} resource "{resource}"'
            raise Refused(403, "Forbidden", f'{what} in API group "{call.group}"')
        with self.cluster.changed:
            for hook in list(self.cluster.every_call):
                hook(call)
        return call

    def _watch(self, call: Call) -> None:
        events = requests.watch_events(self.cluster, call)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for event in events:
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _send(self, status: int, text: str, *, plain: bool = False) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if plain else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _path(self) -> str:
        return unquote(urlsplit(self.path).path)

    def _query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))

    def log_message(self, *_: Any) -> None:
        pass


def _read(body: bytes) -> Any:
    """A body: JSON, or for apply patches YAML."""
    try:
        return json.loads(body)
    except ValueError:
        return yaml.safe_load(body)


def condition(kind: str, status: str = "True", reason: str = "", message: str = "") -> Object:
    """A condition of a status, as controllers write it."""
    return {"type": kind, "status": status, "reason": reason or kind, "message": message}
