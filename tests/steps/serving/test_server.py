from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from free_ports import free_port
from served_files import file_server

from steps.runtime.errors import InsufficientCapacity, StepError, TimeLimit
from steps.runtime.process_identity import process_identity
from steps.serving import server
from steps.serving.server import PortInUse, Server


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "server.json"
    server.stop(tmp_path / "server.json", grace=0)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


def run(record: Path, log: Path, code: str) -> Server:
    """Start a Python program as the server."""
    new = file_server(record.parent, ["base"], free_port(), [sys.executable, "-c", code])
    return server.start(new, record, log, os.environ)


def wait_for(path: Path) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def test_start_find_and_stop(record: Path, log: Path) -> None:
    started = server.start(file_server(record.parent, ["base", "tuned"], free_port()), record, log, os.environ)
    server.wait_until_healthy(started, log, 120)
    assert server.read(record) == started
    assert process_identity(started.pid) == started.identity
    assert os.getsid(started.pid) == started.pid, "it would not outlive the session of its parent"
    assert server.stop(record) == started
    assert not server.is_alive(started)
    assert not record.exists()
    assert server.stop(record) is None


def test_healthy_only_if_all_models_are_listed(record: Path, log: Path) -> None:
    started = server.start(file_server(record.parent, ["base"], free_port()), record, log, os.environ)
    server.wait_until_healthy(started, log, 120)
    assert not server.is_healthy(dataclasses.replace(started, models=["base", "tuned"]))


def test_unhealthy_if_another_server_has_the_port(record: Path, log: Path, tmp_path: Path) -> None:
    other = server.start(file_server(tmp_path, ["base"], free_port()), record, log, os.environ)
    server.wait_until_healthy(other, log, 120)
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    new = dataclasses.replace(other, command=sleep, mark=f"loading-{other.port}", pid=0)
    loading = server.start(new, tmp_path / "loading.json", log, os.environ)
    assert server.is_alive(loading) and not server.is_healthy(loading)
    server.stop(tmp_path / "loading.json")
    assert server.is_healthy(other)


def test_the_answers_of_another_server_on_the_port_are_ignored(record: Path, log: Path) -> None:
    """It can require an API key, which is no reason why this one does not start."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((server.HOST, 0), Other) as other:
        threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
        up = record.parent / "up"
        code = (
            f"import pathlib, time; print('loading', flush=True); pathlib.Path({str(up)!r}).touch(); time.sleep(600)"
        )
        sleep = [sys.executable, "-c", f"{code}; time.sleep(600)"]
        started = server.start(file_server(record.parent, ["base"], other.server_port, sleep), record, log, os.environ)
        wait_for(up)
        with pytest.raises(TimeLimit, match="last log message: loading"):
            server.wait_until_healthy(started, log, 1)
        other.shutdown()


def test_a_server_without_a_recorded_pid_is_found(record: Path, log: Path) -> None:
    started = server.start(file_server(record.parent, ["base"], free_port()), record, log, os.environ)
    unrecorded = dataclasses.replace(started, pid=0, identity="")
    server.write(record, unrecorded)
    wait_for(Path(f"/proc/{started.pid}/environ"))
    assert [process.pid for process in server.processes(unrecorded)] == [started.pid]
    assert server.stop(record) == unrecorded
    assert not server.is_alive(started)


def test_a_server_is_found_after_the_clock_was_corrected(
    record: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """psutil's creation time moves with the boot time that the kernel derives from the clock."""
    started = server.start(file_server(record.parent, ["base"], free_port()), record, log, os.environ)
    server.wait_until_healthy(started, log, 120)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: 1.0)
    assert server.is_alive(started)
    assert [process.pid for process in server.processes(started)] == [started.pid]


def test_the_record_of_an_earlier_version_is_read(record: Path, log: Path) -> None:
    started = server.start(file_server(record.parent, ["base"], free_port()), record, log, os.environ)
    server.wait_until_healthy(started, log, 120)
    content = {key: value for key, value in dataclasses.asdict(started).items() if key != "identity"}
    record.write_text(json.dumps(content | {"created": 1764300000.25}))
    earlier = server.read(record)
    assert earlier and server.is_alive(earlier) and server.is_healthy(earlier)
    assert server.stop(record) == earlier
    assert not server.is_alive(started)


def test_another_process_with_the_same_pid_is_not_touched(record: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        stale = dataclasses.replace(file_server(record.parent, ["base"], 8000), pid=other.pid, identity="1")
        server.write(record, stale)
        assert not server.is_alive(stale)
        assert server.stop(record) is None
        assert other.poll() is None
        assert not record.exists()
    finally:
        other.kill()
        other.wait()


def test_children_that_ignore_sigterm_are_killed(record: Path, log: Path, tmp_path: Path) -> None:
    ignore_sigterm = "import signal, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    child = f"{ignore_sigterm}; pathlib.Path({str(tmp_path / 'up')!r}).touch(); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    started = run(record, log, code)
    wait_for(tmp_path / "up")
    assert len(server.processes(started)) == 2
    server.stop(record, grace=0.2)
    assert server.processes(started) == []


def test_orphans_of_a_killed_server_are_stopped(record: Path, log: Path, tmp_path: Path) -> None:
    child = f"import time, pathlib; pathlib.Path({str(tmp_path / 'up')!r}).touch(); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}], env={{}}).wait()"
    started = run(record, log, code)
    wait_for(tmp_path / "up")
    os.kill(started.pid, signal.SIGKILL)
    os.waitpid(started.pid, 0)
    (orphan,) = server.processes(started)
    assert not server.is_alive(started)
    server.stop(record)
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def test_error_of_a_server_that_exits(record: Path, log: Path) -> None:
    started = run(record, log, "raise ValueError('no weights')")
    with pytest.raises(StepError, match="exited before it answered: ValueError: no weights"):
        server.wait_until_healthy(started, log, 120)


def test_error_of_a_port_in_use(record: Path, log: Path) -> None:
    with socket.create_server((server.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        started = server.start(file_server(record.parent, ["base"], port), record, log, os.environ)
        with pytest.raises(PortInUse, match=f"port {port} is in use by another process"):
            server.wait_until_healthy(started, log, 120)


def test_error_of_a_killed_server(record: Path, log: Path) -> None:
    started = run(record, log, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(InsufficientCapacity, match="was killed by SIGKILL"):
        server.wait_until_healthy(started, log, 120)


def test_error_of_a_server_that_never_answers(record: Path, log: Path) -> None:
    started = run(record, log, "import time; print('still loading', flush=True); time.sleep(600)")
    with pytest.raises(TimeLimit, match="did not answer within 1 s"):
        server.wait_until_healthy(started, log, 1)


def test_the_previous_log_is_retained(record: Path, log: Path) -> None:
    log.write_text("before")
    run(record, log, "print('now')")
    assert (log.with_name("server.previous.log")).read_text() == "before"


def test_free_port_skips_ports_in_use() -> None:
    with socket.create_server((server.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert server.free_port([port, 0]) == 0
        with pytest.raises(InsufficientCapacity, match="all in use"):
            server.free_port([port])


TRACEBACK = """Traceback (most recent call last):
  File "serve.py", line 1, in <module>
OSError: [Errno 98] Address already in use
bye
"""
VLLM_LOG = """(EngineCore pid=7) ERROR 11-24 10:26 [core.py:9] ValueError: max_num_seqs is 0
(APIServer pid=5) RuntimeError: Engine core initialization failed. See root cause above.
"""
USAGE = """usage: vllm serve
vllm serve: error: unrecognized arguments: --nope
"""
PYDANTIC = """pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (9) is greater than 8. [type=value_error, input_value=ArgsKwargs(())]
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
ULIMIT = """ValueError: no memory for the cache
WARNING Found ulimit of 20000: this can cause errors like `OSError: [Errno 24] Too many open files`. Consider \
increasing with ulimit -n
"""
PYDANTIC_ERROR = (
    "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig: Value error, User-specified "
    "max_model_len (9) is greater than 8."
)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "(empty log)"),
        (PYDANTIC, PYDANTIC_ERROR),
        (ULIMIT, "ValueError: no memory for the cache"),
        (ULIMIT.splitlines()[1] + "\nloading weights\n", "loading weights"),
        ("loading\nhalf way\n", "half way"),
        (TRACEBACK, "OSError: [Errno 98] Address already in use"),
        (VLLM_LOG, "ValueError: max_num_seqs is 0"),
        (USAGE, "error: unrecognized arguments: --nope"),
        ("\x1b[31mtorch.OutOfMemoryError: CUDA out of memory\x1b[0m\n", "torch.OutOfMemoryError: CUDA out of memory"),
    ],
)
def test_last_error_of_a_log(log: Path, text: str, error: str) -> None:
    log.write_text(text)
    assert server.last_error(log) == error
