"""Chunked uploads resume or restart after an interruption at any byte, in the same process or a new one."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from faults import kill_proof
from hypothesis import example, given, settings
from hypothesis import strategies as st
from registry_fixture import Answer, BreakingWire, Front, Registry, Request, ref, serve_http

from steps.oci import oci_layout, registry, registry_upload
from steps.oci.oci_layout import Blob, Image
from steps.oci.registry_client import RegistryClient
from steps.runtime import files
from steps.runtime.errors import StepError

pytestmark = pytest.mark.usefixtures("docker_config", "small_chunks")
CHUNK = 64 * 1024
SIZE = 3 * CHUNK + 1000
NUMBER = itertools.count()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_upload, "CHUNK", CHUNK)


@pytest.fixture
def content(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(os.urandom(SIZE))
    return path


def blob_of(path: Path) -> Blob:
    return Blob(oci_layout.LAYER, files.sha256(path), path.stat().st_size)


def send(
    address: str, path: Path, *, session_file: Path | None = None, wait: Callable[[float], None] = lambda _: None
) -> str:
    client = RegistryClient(ref(f"{address}/blobs:1"), push=True, wait=wait)
    return client.send_blob(blob_of(path), path, session_file=session_file)


def is_there(registry: Registry, path: Path, tmp_path: Path) -> bool:
    """The registry returns the same bytes; ``fetch_blob`` compares digest and size."""
    back = tmp_path / "back"
    RegistryClient(ref(f"{registry.address}/blobs:1")).fetch_blob(blob_of(path), back)
    return back.read_bytes() == path.read_bytes()


def test_chunks_are_sent_in_order(content: Path, front: Front, open_registry: Registry, tmp_path: Path) -> None:
    assert send(front.address, content) == "sent"
    sent = [(request.method, request.headers.get("content-range", "")) for request in front.seen]
    assert sent == [
        ("POST", ""),
        ("PATCH", "0-65535"),
        ("PATCH", "65536-131071"),
        ("PATCH", "131072-196607"),
        ("PATCH", "196608-197607"),
        ("PUT", ""),
    ]
    assert front.sent("PATCH") == SIZE and front.sent("PUT") == 0
    assert is_there(open_registry, content, tmp_path)


def test_small_blob_is_sent_in_one_request(tmp_path: Path, front: Front) -> None:
    for size in (0, 1, CHUNK):
        (tmp_path / "small").write_bytes(os.urandom(size))
        front.seen.clear()
        assert send(front.address, tmp_path / "small") == "sent"
        assert [request.method for request in front.seen] == ["POST", "PUT"]
        assert front.sent("PUT") == size


@given(limit=st.integers(0, SIZE + 4000), of=st.sampled_from(["client", "server"]), cuts=st.integers(1, 3))
@example(limit=0, of="client", cuts=3)
@example(limit=1, of="server", cuts=1)
@example(limit=2511, of="server", cuts=2)
@example(limit=CHUNK, of="client", cuts=1)
@settings(max_examples=25)
def test_upload_interrupted_at_any_byte(
    open_registry: Registry, tmp_path: Path, limit: int, of: str, cuts: int
) -> None:
    """Bytes of the client are cut in requests, those of the server (some 600 an answer) in answers."""
    path = tmp_path / f"content-{next(NUMBER)}"
    path.write_bytes(os.urandom(SIZE))
    wire = BreakingWire(open_registry.address, limit if of == "client" else limit % 4000, cuts, of=of)
    try:
        assert send(wire.address, path, session_file=tmp_path / "session.json") == "sent"
    finally:
        wire.close()
    assert is_there(open_registry, path, tmp_path)
    assert not (tmp_path / "session.json").exists()
    path.unlink()


def test_killed_push_resumes_in_the_next_process(
    content: Path, front: Front, open_registry: Registry, tmp_path: Path
) -> None:
    """Killed when the third chunk has arrived and before it hears of it."""
    session_file = tmp_path / "session.json"
    front.faults.fail("killed", 4)
    assert not kill_proof(front.faults, lambda: send(front.address, content, session_file=session_file))
    assert json.loads(session_file.read_text())["offset"] == 2 * CHUNK
    front.seen.clear()
    assert send(front.address, content, session_file=session_file) == "sent"
    assert is_there(open_registry, content, tmp_path)


def test_no_chunk_is_sent_twice(content: Path, front: Front, tmp_path: Path) -> None:
    session_file = tmp_path / "session.json"
    patches = itertools.count(1)

    def gone(request: Request) -> Answer | None:
        return Answer(403) if request.method == "PATCH" and next(patches) == 3 else None

    front.before = gone
    with pytest.raises(StepError):
        send(front.address, content, session_file=session_file)
    assert oct(session_file.stat().st_mode & 0o777) in ("0o644", "0o600")
    front.seen.clear()
    assert send(front.address, content, session_file=session_file) == "sent"
    assert [request.method for request in front.seen] == ["GET", "PATCH", "PATCH", "PUT"]
    assert front.sent("PATCH") == SIZE - 2 * CHUNK
    assert not session_file.exists()


def test_upload_state_of_another_blob_is_ignored(content: Path, front: Front, tmp_path: Path) -> None:
    session_file = tmp_path / "session.json"
    for text in (
        "torn",
        "{}",
        "[]",
        json.dumps({"repository": "x/y", "blob": "sha256:0", "location": "http://127.0.0.1:1/", "offset": 5}),
    ):
        session_file.write_text(text)
        front.seen.clear()
        (content).write_bytes(os.urandom(SIZE))
        assert send(front.address, content, session_file=session_file) == "sent"
        assert front.seen[0].method == "POST"


def test_lost_upload_session_restarts(content: Path, front: Front, tmp_path: Path) -> None:
    session_file = tmp_path / "session.json"
    location = f"http://{front.address}/v2/blobs/blobs/uploads/00000000-0000-0000-0000-000000000000?_state=x"
    place = {"repository": f"{front.address}/blobs", "blob": blob_of(content).digest, "location": location}
    session_file.write_text(json.dumps({**place, "offset": CHUNK}))
    assert send(front.address, content, session_file=session_file) == "sent"
    assert [request.method for request in front.seen][:2] == ["GET", "POST"]


def test_lost_response_to_the_last_request(content: Path, front: Front) -> None:
    """The blob is there; it is found, and not sent again."""
    front.faults.fail("truncated", 6)
    assert send(front.address, content) == "sent"
    assert front.sent("PATCH") == SIZE
    assert front.faults.calls[5:] == ["PUT /blobs/uploads/ID", "HEAD /blobs/DIGEST"]


@pytest.mark.parametrize("size", [3000, SIZE])
def test_damaged_bytes_are_reported(front: Front, tmp_path: Path, size: int) -> None:
    path = tmp_path / "content"
    path.write_bytes(os.urandom(size))
    blob = blob_of(path)
    client = RegistryClient(ref(f"{front.address}/blobs:1"), push=True)
    for damaged in (os.urandom(size), os.urandom(size - 1)):
        path.write_bytes(damaged)
        with pytest.raises(StepError, match=f"blob {blob.digest} does not match") as caught:
            client.send_blob(blob, path)
        assert "package the adapter again" in caught.value.fix


def test_chunk_without_progress_fails(content: Path, front: Front) -> None:
    front.before = lambda request: Answer(202, {"Range": "0-0"}) if request.method == "PATCH" else None
    with pytest.raises(StepError, match="lost the upload offset"):
        send(front.address, content)


def test_chunks_shrink_for_a_proxy_with_a_limit(front: Front, open_registry: Registry, tmp_path: Path) -> None:
    """nginx takes bodies of 1 MB unless told otherwise."""
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1_500_000))
    limit = 1_000_000
    front.before = lambda request: Answer(413) if len(request.body) > limit else None
    for chunk in (32 * 1024 * 1024, 1_200_000):
        path.write_bytes(os.urandom(1_500_000))
        front.seen.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(registry_upload, "CHUNK", chunk)
            assert send(front.address, path) == "sent"
        assert max(len(r.body) for r in front.seen if r.method == "PATCH" and len(r.body) <= limit) <= limit
    assert is_there(open_registry, path, tmp_path)


def test_chunks_grow_to_the_registry_minimum(content: Path, front: Front) -> None:
    def larger(request: Request, answer: Answer) -> Answer:
        more = {"OCI-Chunk-Min-Length": str(2 * CHUNK)} if request.method == "POST" else {}
        return Answer(answer.status, answer.headers | more, answer.body)

    front.after = larger
    send(front.address, content)
    assert [len(request.body) for request in front.seen if request.method == "PATCH"] == [2 * CHUNK, SIZE - 2 * CHUNK]


def test_blobs_are_mounted_from_another_repository(
    image: Image, front: Front, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = ref(f"{front.address}/mount/first:1"), ref(f"{front.address}/mount/second:1")
    registry.push_image(image.layout, first)
    front.seen.clear()
    assert registry.push_image(image.layout, second, mount_from=first) == image.manifest.digest
    assert front.sent("PATCH") == front.sent("POST") == 0
    assert [r.method for r in front.seen if "/blobs/uploads/" in r.path] == ["POST", "POST"]
    assert all(
        f"mount={blob.digest.replace(':', '%3A')}" in front.seen[2 * n + 2].path for n, blob in enumerate(image.layers)
    )
    assert capsys.readouterr().out.count(": mounted") == 2
    assert registry.pull_image(second, tmp_path / "back") == image.manifest.digest


@pytest.mark.parametrize("refusal", [401, 403, 404])
def test_forbidden_source_repository_is_ignored(image: Image, front: Front, refusal: int) -> None:
    first, second = ref(f"{front.address}/hidden-{refusal}:1"), ref(f"{front.address}/shown-{refusal}:1")
    front.before = lambda request: Answer(refusal) if "mount=" in request.path else None
    assert registry.push_image(image.layout, second, mount_from=first) == image.manifest.digest


def test_upload_urls_of_other_hosts_are_not_stored(
    content: Path, front: Front, open_registry: Registry, tmp_path: Path
) -> None:
    """They may carry their own permission."""
    storage = Front(open_registry.address)
    kept: list[bool] = []
    session_file = tmp_path / "session.json"

    def elsewhere(request: Request, answer: Answer) -> Answer:
        kept.append(session_file.exists())
        return Answer(answer.status, {k: v.replace(front.address, storage.address) for k, v in answer.headers.items()})

    front.after = storage.after = elsewhere
    try:
        assert send(front.address, content, session_file=session_file) == "sent"
    finally:
        storage.close()
    assert not any(kept)
    assert storage.sent("PATCH") == SIZE


class Resuming:
    """An upload by the letter of the specification, which keeps what came of a chunk that was cut.

    Debian's docker-registry does not; no other registry is available offline.
    """

    def __init__(self) -> None:
        self.data = b""
        self.blob = b""
        self.came = 0
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.answer(200 if store.blob else 404)

            def do_POST(self) -> None:
                self.answer(202, Location="/v2/blobs/blobs/uploads/1")

            def do_GET(self) -> None:
                self.answer(204, Location="/v2/blobs/blobs/uploads/1", Range=f"0-{max(len(store.data) - 1, 0)}")

            def do_PATCH(self) -> None:
                start, end = map(int, self.headers["Content-Range"].split("-"))
                if start != len(store.data):
                    self.rfile.read(end - start + 1)
                    return self.answer(416, Range=f"0-{max(len(store.data) - 1, 0)}")
                for _ in range(start, end + 1, 1000):
                    piece = self.rfile.read(min(1000, end + 1 - len(store.data)))
                    store.data += piece
                    store.came += len(piece)
                self.answer(202, Location="/v2/blobs/blobs/uploads/1", Range=f"0-{len(store.data) - 1}")

            def do_PUT(self) -> None:
                store.blob, store.data = store.data, b""
                self.answer(201)

            def answer(self, status: int, **headers: str) -> None:
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server, self.address = serve_http(Handler)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def resuming() -> Iterator[Resuming]:
    server = Resuming()
    yield server
    server.close()


@pytest.mark.parametrize("limit", [500, 20_000, CHUNK + 30_000, SIZE])
def test_chunk_resumes_at_the_offset_of_the_registry(resuming: Resuming, content: Path, limit: int) -> None:
    wire = BreakingWire(resuming.address, limit, cuts=2)
    try:
        assert send(wire.address, content) == "sent"
    finally:
        wire.close()
    assert wire.cut
    assert resuming.blob == content.read_bytes()
    assert resuming.came == SIZE, "no byte was sent twice"
