"""A local server process: start it so that it outlives the step, find it again, check it, stop it.

Its record (JSON) is written before the process is created and completed afterwards, so the process is found even if
the step is killed in between. A process is identified by pid and start ticks, so a later process with the same pid
is never touched; children are found by process group and by an environment variable.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from steps.runtime import files
from steps.runtime.errors import InsufficientCapacity, StepError, TimeLimit
from steps.runtime.process_identity import process_identity
from steps.serving import serving_client

RECORD = "server.json"
STARTING = "starting.json"
"""Record of a server that has not answered yet; the server in ``RECORD`` stays live until then."""
MARK = "ARGOTUNE_SERVER"
HOST = "127.0.0.1"
PORTS = range(8000, 8100)
GRACE_SECONDS = 10.0
MAX_DETAILS = 2
"""Lines of a pydantic error that are part of a message: field and reason."""
_children: dict[int, subprocess.Popen[bytes]] = {}
"""Servers started by this process. Python reaps the process of a collected Popen, and its exit code is lost."""


class PortInUse(StepError):
    """Another process listens on the port."""


@dataclass(frozen=True)
class Server:
    """The record of a server process."""

    kind: str
    """``vllm`` or ``transformers``."""
    endpoint: str
    """Root address, for example ``http://127.0.0.1:8000``."""
    models: list[str]
    """Names of its models, the base model first."""
    command: list[str]
    settings: str
    """Digest of its configuration; another digest needs another server."""
    mark: str
    """Value of ``ARGOTUNE_SERVER`` in the environment of the process and its children."""
    pid: int = 0
    """0 until the process exists."""
    identity: str = ""
    """Identity of the process (``steps.runtime.process_identity``)."""
    adapters: list[dict[str, str]] = dataclasses.field(default_factory=list)
    """Adapters that have answered (``steps.serving.desired_adapters``)."""
    api_keys: str = ""
    """Folder of the clients' API keys; empty: requests need none."""
    metrics: str = ""
    """Address of its metrics; empty: it has none."""

    @property
    def port(self) -> int:
        """Port of the endpoint."""
        return int(self.endpoint.rpartition(":")[2])


def start(server: Server, record: Path, log: Path, environment: Mapping[str, str]) -> Server:
    """Start ``server.command`` in a new session with its output in ``log``; return the completed record."""
    write(record, server)
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        os.replace(log, log.with_suffix(".previous.log"))  # an older server can still write to it
    with log.open("wb") as output:
        process = subprocess.Popen(
            server.command,
            cwd=record.parent,
            env={**environment, MARK: server.mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[process.pid] = process
    server = dataclasses.replace(server, pid=process.pid, identity=process_identity(process.pid))
    write(record, server)
    return server


def read(record: Path) -> Server | None:
    """Return the server of a record; None if the record is missing or incomplete."""
    try:
        content = json.loads(record.read_text())
        content.pop("created", None)  # of earlier versions, whose servers are found by their mark
        return Server(**content)
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def is_alive(server: Server) -> bool:
    """Return True if the main process is running."""
    if not server.pid or not server.identity:
        return bool(processes(server))
    try:
        is_zombie = psutil.Process(server.pid).status() == psutil.STATUS_ZOMBIE
        return not is_zombie and process_identity(server.pid) == server.identity
    except psutil.NoSuchProcess:
        return False


def is_healthy(server: Server, timeout: float = 5.0) -> bool:
    """Return True if it is running, listens on its port, reports its health, and lists all its models."""
    import requests

    if not is_alive(server) or not _listens(server):
        return False
    try:
        with serving_client.session() as session:
            is_up = session.get(f"{server.endpoint}/health", timeout=timeout).status_code == 200
            models = session.get(f"{server.endpoint}/v1/models", timeout=timeout).json()["data"] if is_up else []
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return False
    return is_up and set(server.models) <= {model.get("id") for model in models}


def wait_until_healthy(server: Server, log: Path, seconds: float) -> None:
    """Wait until the server is healthy.

    Raises:
        PortInUse: It exited because another process has its port.
        InsufficientCapacity: It exited because it ran out of memory.
        StepError: It exited for another reason, by the last error of its log; or it cannot load an adapter.
        TimeLimit: It is running, but not healthy after ``seconds``.
    """
    end = time.monotonic() + seconds
    while not is_healthy(server):
        if not is_alive(server):
            raise _exit_error(server, log)
        if _listens(server) and (problem := serving_client.get_problem(server.endpoint)):
            raise StepError(problem, f"see {log}")
        if time.monotonic() > end:
            raise TimeLimit(
                f"the {server.kind} server did not answer within {seconds:.0f} s; last log message: {last_error(log)}",
                f"increase the deadline, or see {log}",
            )
        time.sleep(0.2)


def stop(record: Path, grace: float = GRACE_SECONDS) -> Server | None:
    """Stop all processes of a server and delete its record; return the server if a process was running.

    The processes get SIGTERM, and SIGKILL after ``grace`` seconds.
    """
    server = read(record)
    if server is None:
        record.unlink(missing_ok=True)
        return None
    running = processes(server)
    for signal_, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        end = time.monotonic() + seconds
        for process in processes(server):
            _send(process, signal_)
        while processes(server) and time.monotonic() < end:
            time.sleep(0.05)
    if remaining := processes(server):
        pid = remaining[0].pid
        raise StepError(f"cannot stop process {pid} of {server.endpoint}", f"see its state with: ps -f -p {pid}")
    record.unlink(missing_ok=True)
    adapters_file(server, record.parent).unlink(missing_ok=True)
    return server if running else None


def adapters_file(server: Server, folder: Path) -> Path:
    """Return the file of the server's desired adapters; ``folder`` is that of its record."""
    return folder / f"adapters-{server.mark}.json"


def processes(server: Server) -> list[psutil.Process]:
    """Return all running processes of the server."""
    # Without a process of this pid, its children can still have its group.
    identity = process_identity(server.pid) if server.pid else ""
    group = server.pid if identity in ("", server.identity) else 0
    return [process for process in psutil.process_iter() if _belongs(process, group, server.mark)]


def free_port(ports: Sequence[int] = PORTS) -> int:
    """Return the first free port.

    Raises:
        InsufficientCapacity: All ports are in use.
    """
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise InsufficientCapacity(f"ports {ports[0]} to {ports[-1]} are all in use", "stop a server, or set another port")


def last_error(log: Path) -> str:
    """Return the last error in a log, or else its last line."""
    try:
        text = log.read_text(errors="replace")[-200_000:]
    except OSError:
        return "(no log)"
    return last_error_in(text)


def last_error_in(text: str) -> str:
    """Return the last error in the text of a log, or else its last line."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in text.splitlines() if line.strip()]
    errors = [
        match[0] + (_validation_details(lines[number + 1 :]) if _VALIDATION_ERROR.search(match[0]) else "")
        for number, line in enumerate(lines)
        if (match := _ERROR.search(line)) and not _NO_CAUSE.search(line)
    ]
    return (errors or lines or ["(empty log)"])[-1][:500]


def _validation_details(following: Sequence[str]) -> str:
    """Return the lines below pydantic's headline, which has only the number of errors."""
    details = itertools.takewhile(lambda line: "For further information" not in line, following[:MAX_DETAILS])
    return "".join(f": {line.partition(' [type=')[0]}" for line in details)


# vLLM's summary of an earlier error, and its warning about the limit of open files, which quotes an error.
_NO_CAUSE = re.compile(r"root cause|\bulimit\b")
_VALIDATION_ERROR = re.compile(r"validation errors? for \S+$")
# The last line of a traceback (or vLLM's log of it), or an error of argparse.
_ERROR = re.compile(r"(?<![\w.])(?:[a-zA-Z_]+\.)*[A-Z]\w*(?:Error|Exception|NotFound)\b: .+|\berror: .+")


def _exit_error(server: Server, log: Path) -> StepError:
    error = last_error(log)
    if _exit_code(server) == -signal.SIGKILL:
        return InsufficientCapacity(
            f"the {server.kind} server was killed by SIGKILL (possibly out of memory)", f"see {log}"
        )
    if "address already in use" in error.lower():
        return PortInUse(f"port {server.port} is in use by another process", "set another port, or 0 for a free one")
    if re.search(r"out of memory|OutOfMemory|MemoryError|not enough memory|No available memory", error):
        return InsufficientCapacity(
            f"the {server.kind} server ran out of memory: {error}", "use a smaller model or more memory"
        )
    return StepError(f"the {server.kind} server exited before it answered: {error}", f"see {log}")


def _exit_code(server: Server) -> int | None:
    """Return the exit code of a process, negative for a signal; only its parent process can read it."""
    child = _children.get(server.pid)
    return child.poll() if child else None


def _listens(server: Server) -> bool:
    """Return True if a process of the server listens on its port, and not another server."""
    for process in processes(server):
        with contextlib.suppress(psutil.Error):
            sockets = process.net_connections("tcp4")
            if any(s.laddr and s.laddr.port == server.port and s.status == psutil.CONN_LISTEN for s in sockets):
                return True
    return False


def _belongs(process: psutil.Process, group: int, mark: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if group and os.getpgid(process.pid) == group:
            return True
        return process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False


def _send(process: psutil.Process, signal_: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal_)


def write(record: Path, server: Server) -> None:
    """Write the record of a server."""
    files.write_json(record, dataclasses.asdict(server))
