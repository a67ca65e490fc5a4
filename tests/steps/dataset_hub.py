"""A local hub of Hugging Face datasets: commits, files by page and by range, private ones, and the API's errors."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from faults import Faults, FaultyHandler

PAGE = 3
"""Entries of one page of a list of files."""


@dataclass
class Revision:
    """Files of a commit."""

    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        digest = hashlib.sha1()
        for name, content in sorted(self.files.items()):
            digest.update(name.encode() + hashlib.sha1(content).digest())
        return digest.hexdigest()


class DatasetHub:
    """Serves one dataset, ``org/rows``; ``token`` makes it private."""

    dataset = "org/rows"

    def __init__(self, token: str = "") -> None:
        self.token = token
        self.revisions: dict[str, Revision] = {"main": Revision()}
        self.commits: dict[str, Revision] = {}
        self.requests: list[str] = []
        self.faults = Faults()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.port: int = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def commit(self, files: dict[str, bytes], revision: str = "main") -> str:
        """Replace the files of a branch and return the commit; older ones remain."""
        self.revisions[revision] = Revision(dict(files))
        self.commits[self.revisions[revision].commit] = self.revisions[revision]
        return self.revisions[revision].commit

    def find(self, revision: str) -> Revision | None:
        return self.revisions.get(revision) or self.commits.get(revision)

    def stop(self) -> None:
        self.faults.close()
        self.server.shutdown()
        self.server.server_close()


def _handler(hub: DatasetHub) -> type[BaseHTTPRequestHandler]:
    class Handler(FaultyHandler, BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        faults = hub.faults

        def call_name(self) -> str:
            path = re.sub(r"\b[0-9a-f]{40}\b", "COMMIT", urlsplit(self.path).path)
            return f"{self.command} {path}{', a part' if 'Range' in self.headers else ''}"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            hub.requests.append(parts.path)
            api, files = f"/api/datasets/{hub.dataset}/", f"/datasets/{hub.dataset}/resolve/"
            if not parts.path.startswith((api, files)):
                self.refuse(401, "RepoNotFound")
            elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self.refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo")
            elif parts.path.startswith(files):
                revision, name = parts.path.removeprefix(files).split("/", 1)
                self.file(unquote(revision), unquote(name))
            else:
                kind, revision, *rest = parts.path.removeprefix(api).split("/", 2)
                self.api(kind, unquote(revision), unquote(rest[0]) if rest else "", parse_qs(parts.query))

        def api(self, kind: str, name: str, folder: str, query: dict[str, list[str]]) -> None:
            revision = hub.find(name)
            if revision is None:
                self.refuse(404, "RevisionNotFound")
            elif kind == "revision":
                self.send(200, json.dumps({"id": hub.dataset, "sha": revision.commit}).encode(), {})
            else:
                self.tree(revision, folder, query)

        def tree(self, revision: Revision, folder: str, query: dict[str, list[str]]) -> None:
            inside = sorted(name for name in revision.files if not folder or name.startswith(f"{folder}/"))
            if not inside:
                return self.refuse(404, "EntryNotFound")
            if query["recursive"] == ["false"]:
                depth = len(folder.split("/")) + 1 if folder else 1
                inside = list(dict.fromkeys("/".join(name.split("/")[:depth]) for name in inside))
            start = int(query.get("cursor", ["0"])[0])
            entries = [
                {"type": "file", "path": name, "size": len(revision.files[name])}
                if name in revision.files
                else {"type": "directory", "path": name}
                for name in inside[start : start + PAGE]
            ]
            url = f"{hub.url}{urlsplit(self.path).path}?recursive={query['recursive'][0]}&cursor={start + PAGE}"
            headers = {"Link": f'<{url}>; rel="next"'} if start + PAGE < len(inside) else {}
            self.send(200, json.dumps(entries).encode(), headers)

        def file(self, name: str, path: str) -> None:
            revision = hub.find(name)
            if revision is None or path not in revision.files:
                return self.refuse(404, "EntryNotFound")
            content = revision.files[path]
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            headers = {"ETag": tag, "Accept-Ranges": "bytes"}
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if not asked or self.headers.get("If-Range", tag) != tag:
                return self.send(200, content, headers)
            first, last = int(asked[1]), int(asked[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{min(last, len(content) - 1)}/{len(content)}"
            return self.send(206, content[first : last + 1], headers)

        def refuse(self, status: int, code: str) -> None:
            self.send(status, json.dumps({"error": code}).encode(), {"X-Error-Code": code})

        def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
