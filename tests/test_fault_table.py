"""Injected faults are real on the wire, and the table contains the results."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fault_table
import pytest
from fault_table import Row
from faults import RETRY_AFTER, Faults, FaultyHandler, kill_proof

RESPONSE = b"a full response"


class Counting(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        self.faults = Faults()
        self.performed = 0
        server = self

        class Handler(FaultyHandler, BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            faults = server.faults

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.performed += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(RESPONSE)))
                self.end_headers()
                self.wfile.write(RESPONSE)

            def do_DELETE(self) -> None:
                server.performed += 1
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def request(self, method: str = "POST") -> tuple[int, bytes, str | None]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server_port, timeout=3)
        try:
            connection.request(method, "/thing?run=1", b"body" if method == "POST" else None)
            response = connection.getresponse()
            return response.status, response.read(), response.getheader("Retry-After")
        finally:
            connection.close()


@pytest.fixture
def server() -> Iterator[Counting]:
    server = Counting()
    yield server
    server.faults.close()
    server.shutdown()
    server.server_close()


def test_the_chosen_call_fails_once_and_the_others_do_not(server: Counting) -> None:
    server.faults.fail("500", 2)
    assert [server.request()[0] for _ in range(4)] == [200, 500, 200, 200]
    assert server.performed == 3
    assert server.faults.calls == ["POST /thing"] * 4


def test_429_has_a_retry_after_header(server: Counting) -> None:
    server.faults.fail("429", 1)
    assert server.request()[::2] == (429, str(RETRY_AFTER))
    assert server.performed == 0


@pytest.mark.parametrize(
    ("kind", "error", "performed"),
    [("reset", ConnectionResetError, 0), ("timeout", TimeoutError, 1), ("truncated", http.client.IncompleteRead, 1)],
)
def test_the_connection_fails_as_named(server: Counting, kind: str, error: type[Exception], performed: int) -> None:
    server.faults.fail(kind, 1)
    with pytest.raises(error):
        server.request()
    assert server.performed == performed
    assert server.request()[1] == RESPONSE


def test_a_response_without_a_body_is_truncated(server: Counting) -> None:
    server.faults.fail("truncated", 1)
    with pytest.raises(http.client.BadStatusLine):
        server.request("DELETE")
    assert server.performed == 1


def test_the_client_is_killed_after_the_call_is_performed(server: Counting) -> None:
    server.faults.fail("killed", 2)

    def three_calls() -> None:
        for _ in range(3):
            server.request()

    assert not kill_proof(server.faults, three_calls)
    assert server.performed == 2
    assert kill_proof(server.faults, three_calls)
    assert server.performed == 5


def test_a_failing_child_does_not_count_as_killed(server: Counting) -> None:
    def wrong() -> None:
        raise ValueError("wrong")

    with pytest.raises(AssertionError, match="ended with 1"):
        kill_proof(server.faults, wrong)


def test_sections_are_written_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_table, "PAGE", tmp_path / "FAULTS.md")
    rows = [
        Row("create", "PUT thing", "reset", "created once"),
        Row("create", "PUT thing", "500", "created once"),
        Row("create", "PUT thing", "killed", "created once after a restart"),
        Row("create", "GET thing", "reset", "polled"),
        Row("create", "GET thing", "reset", "polled"),
    ]
    monkeypatch.setenv("ARGOTUNE_REGENERATE", "1")
    fault_table.check("things", rows)
    fault_table.check("a section", rows[3:])
    monkeypatch.delenv("ARGOTUNE_REGENERATE")
    fault_table.check("things", rows)
    fault_table.check("a section", rows[3:])
    page = fault_table.PAGE.read_text()
    assert "| create | PUT thing | reset, 500 | created once |\n" in page
    assert page.count("GET thing") == 2
    assert page.index("a section") < page.index("## things")
    with pytest.raises(AssertionError, match="ARGOTUNE_REGENERATE"):
        fault_table.check("things", rows[:-2])


def test_sweep_injects_every_fault_into_every_call() -> None:
    attempted: list[tuple[str, int]] = []

    rows = fault_table.sweep("step", stub(attempted, ["GET a", "PUT a"]), ("reset", "500"))
    assert attempted == [("", 0), ("reset", 1), ("500", 1), ("reset", 2), ("500", 2)]
    assert rows[-1] == Row("step", "PUT a", "500", "ok")


def stub(attempted: list[tuple[str, int]], calls: list[str]) -> Callable[[str, int], tuple[Faults, str]]:
    """Return a step that makes these calls and always succeeds."""

    def run(kind: str, call: int) -> tuple[Faults, str]:
        attempted.append((kind, call))
        faults = Faults()
        if kind:
            faults.fail(kind, call)
        for name in calls:
            faults.begin(name)
        return faults, "ok"

    return run


def test_a_sample_rotates_faults_from_call_to_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARGOTUNE_EVERY_FAULT", raising=False)
    monkeypatch.delenv("ARGOTUNE_REGENERATE", raising=False)
    attempted: list[tuple[str, int]] = []
    run = stub(attempted, ["GET a", "PUT a", "GET a", "PUT b"])
    fault_table.sweep("step", run, ("reset", "500", "killed"), sample=2)
    pairs = [
        ("reset", 1),
        ("500", 1),
        ("killed", 2),
        ("reset", 2),
        ("500", 3),
        ("killed", 3),
        ("reset", 4),
        ("500", 4),
    ]
    assert attempted[1:] == pairs
    for name in ("ARGOTUNE_EVERY_FAULT", "ARGOTUNE_REGENERATE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            assert len(fault_table.sweep("step", run, ("reset", "500", "killed"), sample=2)) == 12


def test_unordered_calls_fail_by_name() -> None:
    failed: list[tuple[str, str]] = []

    def run(kind: str, name: str) -> tuple[Faults, str]:
        faults = Faults()
        if kind:
            faults.fail(kind, 1, name)
        failed.extend((call, kind) for call in ("GET b", "GET a", "GET b") if faults.begin(call))
        return faults, "ok"

    rows = fault_table.sweep_names("step", run, ("reset", "500"))
    assert [row.call for row in rows] == ["GET a", "GET a", "GET b", "GET b"]
    assert failed == [("GET a", "reset"), ("GET a", "500"), ("GET b", "reset"), ("GET b", "500")]


def test_a_sample_must_be_in_the_table_and_cover_its_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_table, "PAGE", tmp_path / "FAULTS.md")
    monkeypatch.setenv("ARGOTUNE_REGENERATE", "1")
    rows = [Row("create", call, kind, "created, once") for call in ("PUT a|b", "GET a") for kind in ("reset", "500")]
    fault_table.check("things", rows)
    monkeypatch.delenv("ARGOTUNE_REGENERATE")
    monkeypatch.delenv("ARGOTUNE_EVERY_FAULT", raising=False)
    fault_table.check("things", rows[1:3], sample=True)
    for other in (
        rows[:2],
        [*rows[1:3], rows[0]._replace(outcome="created twice")],
        [rows[0], rows[3], rows[3]._replace(call="GET c")],
    ):
        with pytest.raises(AssertionError, match="differs"):
            fault_table.check("things", other, sample=True)
    monkeypatch.setenv("ARGOTUNE_EVERY_FAULT", "1")
    with pytest.raises(AssertionError, match="differs"):
        fault_table.check("things", rows[1:3], sample=True)
