"""A local HTTP server that speaks the routes of the Hugging Face hub by which a model is fetched."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from faults import Faults, FaultyHandler

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serves the folder of one model as ``repository``, at revisions ``main`` and ``COMMIT``.

    With ``token`` the repository is gated: without a token it answers 401, with another one 403. ``broken`` makes it
    answer 500 to everything, ``blocked`` 403 as a proxy would that stands before it.
    """

    def __init__(self, repository: str, folder: Path, token: str = "") -> None:
        self.repository, self.folder, self.token = repository, folder, token
        self.broken = self.blocked = False
        self.info: dict[str, object] = {}
        """More of what the hub tells about the model: ``cardData``, ``gated``, ``safetensors``..."""
        self.fetched: list[str] = []
        self.offsets: list[int] = []
        """First bytes of the requests with a Range."""
        self.cuts = self.stalls = ""
        """Name of a file of which half is sent: once before the connection ends, or with no more until ``stop``."""
        self.stalled, self.stopped = threading.Event(), threading.Event()
        self.faults = Faults()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.stopped.set()
        self.faults.close()
        self.server.shutdown()
        self.server.server_close()

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(FaultyHandler, BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        faults = hub.faults

        def call_name(self) -> str:
            """Applies to all files, since the order of downloads varies."""
            path = unquote(urlsplit(self.path).path)
            model = f"/api/models/{hub.repository}"
            kinds = {f"/{hub.repository}/resolve/": "a file", f"{model}/tree/": "list of files", model: "model"}
            return f"{self.command} {next((kind for begin, kind in kinds.items() if path.startswith(begin)), path)}"

        def do_GET(self) -> None:
            self.answer()

        def do_HEAD(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            api, files = f"/api/models/{hub.repository}", f"/{hub.repository}/resolve/"
            if hub.blocked:
                self.send(403, b"Forbidden by policy", {})
            elif hub.broken:
                self.refuse(500, "", "the hub is not well")
            elif not path.startswith((api, files)):
                self.refuse(404, "RepoNotFound", "Repository not found")
            elif hub.token and self.headers.get("Authorization") is None:
                self.refuse(401, "GatedRepo", "Access to this model is restricted")
            elif hub.token and self.headers["Authorization"] != f"Bearer {hub.token}":
                self.refuse(403, "GatedRepo", "Access to this model is restricted")
            elif path.startswith(files):
                self.file(*path.removeprefix(files).split("/", 1))
            else:
                self.api(path.removeprefix(api).strip("/").split("/"))

        def api(self, words: list[str]) -> None:
            kind, revision = words if len(words) == 2 else ("revision", "main")
            if revision not in ("main", COMMIT):
                self.refuse(404, "RevisionNotFound", "Invalid rev id")
            elif kind == "tree":
                self.json([_entry(hub.folder, file) for file in hub.files()])
            else:
                names = {str(file.relative_to(hub.folder)): file.stat().st_size for file in hub.files()}
                siblings = [{"rfilename": name, "size": size} for name, size in names.items()]
                told = {"id": hub.repository, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
                self.json(told | hub.info)

        def file(self, revision: str, name: str) -> None:
            file = hub.folder / name
            if revision not in ("main", COMMIT):
                self.refuse(404, "RevisionNotFound", "Invalid rev id")
            elif not file.is_file():
                self.refuse(404, "EntryNotFound", "Entry not found")
            else:
                if self.command == "GET":
                    hub.fetched.append(name)
                content = file.read_bytes()
                headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
                status, begin = self.range(content, headers)
                self.send(status, content[begin:], headers, half=name in (hub.cuts, hub.stalls))

        def range(self, content: bytes, headers: dict[str, str]) -> tuple[int, int]:
            """Return the status and the first byte of an answer, with their header."""
            begin = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
            if not begin:
                return 200, 0
            hub.offsets.append(int(begin))
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            return 206, int(begin)

        def json(self, value: object) -> None:
            self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def refuse(self, status: int, code: str, message: str) -> None:
            headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
            self.send(status, json.dumps({"error": message}).encode(), headers)

        def send(self, status: int, content: bytes, headers: dict[str, str], *, half: bool = False) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(content[: len(content) // 2] if half else content)
            if half:
                self.close_connection = True
                if hub.stalls:
                    hub.stalled.set()
                    hub.stopped.wait()
                hub.cuts = ""

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _entry(folder: Path, file: Path) -> dict[str, object]:
    content = file.read_bytes()
    return {
        "type": "file",
        "oid": hashlib.sha1(content).hexdigest(),
        "size": len(content),
        "path": str(file.relative_to(folder)),
    }
