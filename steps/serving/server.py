"""A server process on this machine: started so that it outlives its starter, found again, watched, stopped.

What is known of it stands in a record (JSON), written before the process exists and completed after: whoever is
killed in between, the process is found again. Identity is pid and creation time, so a later process that was given
the same pid is never touched; children are known by their process group and by a mark in their environment.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from steps.serving import serving_client

RECORD = "server.json"
STARTING = "starting.json"
"""Record of a server that has not proven itself yet: the one in ``RECORD`` stays in service until then."""
MARK = "ARGOTUNE_SERVER"
HOST = "127.0.0.1"
PORTS = range(8000, 8100)
GRACE_SECONDS = 10.0


class PortInUse(StepError):
    """Another process listens on the port."""


@dataclass(frozen=True)
class Server:
    """One server process, as its record tells."""

    kind: str
    """``vllm`` or ``transformers``."""
    endpoint: str
    """Root address, for example ``http://127.0.0.1:8000``."""
    models: list[str]
    """Names it answers to: the base first."""
    command: list[str]
    settings: str
    """Digest of all that shapes its answers: another digest needs another server."""
    mark: str
    """Value of ``ARGOTUNE_SERVER`` in the environment of the process and its children."""
    pid: int = 0
    """0 until the process exists."""
    created: float = 0.0
    """Creation time of the process as psutil tells it."""
    adapters: list[dict[str, str]] = dataclasses.field(default_factory=list)
    """The adapters it has proven to serve (``steps.serving.desired_adapters``)."""

    @property
    def port(self) -> int:
        """Port of the endpoint."""
        return int(self.endpoint.rpartition(":")[2])


def start(server: Server, record: Path, log: Path, environment: Mapping[str, str]) -> Server:
    """Start ``server.command`` in a session of its own, its output in ``log``; returns the completed record."""
    write(record, server)
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        os.replace(log, log.with_suffix(".previous.log"))  # an older server may still write to it
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
    server = dataclasses.replace(server, pid=process.pid, created=psutil.Process(process.pid).create_time())
    write(record, server)
    return server


def read(record: Path) -> Server | None:
    """The server that ``record`` tells of; None where there is no whole record."""
    try:
        return Server(**json.loads(record.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def is_alive(server: Server) -> bool:
    """Whether its main process runs."""
    if not server.pid:
        return bool(processes(server))
    try:
        process = psutil.Process(server.pid)
        return process.create_time() == server.created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_healthy(server: Server, timeout: float = 5.0) -> bool:
    """Whether it is alive, listens itself, says that it is well, and answers to all its models' names."""
    import requests

    if not is_alive(server) or not _listens(server):
        return False
    try:
        with serving_client.session() as session:
            well = session.get(f"{server.endpoint}/health", timeout=timeout).status_code == 200
            listed = session.get(f"{server.endpoint}/v1/models", timeout=timeout).json()["data"] if well else []
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return False
    return well and set(server.models) <= {model.get("id") for model in listed}


def wait_until_healthy(server: Server, log: Path, seconds: float) -> None:
    """Wait until the server answers.

    Raises:
        PortInUse: it ended because another process has its port.
        InsufficientCapacity: it ended for want of memory.
        StepError: it ended otherwise; the message holds the cause that its log tells.
        TimeLimit: it lives, but does not answer after ``seconds``.
    """
    end = time.monotonic() + seconds
    while not is_healthy(server):
        if not is_alive(server):
            raise _exit_error(server, log)
        if problem := serving_client.get_problem(server.endpoint):
            raise StepError(problem, f"see {log}")
        if time.monotonic() > end:
            raise TimeLimit(
                f"the {server.kind} server did not answer within {seconds:.0f} s; its log ends: {last_error(log)}",
                f"raise the deadline, or see {log}",
            )
        time.sleep(0.2)


def stop(record: Path, grace: float = GRACE_SECONDS) -> Server | None:
    """End the server of ``record`` with all its processes and remove the record; returns it if anything ran.

    They get SIGTERM, and SIGKILL after ``grace`` seconds. Without a record or a process nothing happens.
    """
    server = read(record)
    if server is None:
        record.unlink(missing_ok=True)
        return None
    found = processes(server)
    for signal_, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        end = time.monotonic() + seconds
        for process in processes(server):
            _send(process, signal_)
        while processes(server) and time.monotonic() < end:
            time.sleep(0.05)
    left = processes(server)
    if left:
        raise StepError(f"process {left[0].pid} of {server.endpoint} does not end", "see why with: ps -f -p PID")
    record.unlink(missing_ok=True)
    adapters_file(server, record.parent).unlink(missing_ok=True)
    return server if found else None


def adapters_file(server: Server, folder: Path) -> Path:
    """The file that tells the server which adapters to serve; ``folder`` is that of its record."""
    return folder / f"adapters-{server.mark}.json"


def processes(server: Server) -> list[psutil.Process]:
    """All living processes of the server."""
    reused = bool(server.pid) and psutil.pid_exists(server.pid) and _creation(server.pid) != server.created
    group = 0 if reused else server.pid
    return [process for process in psutil.process_iter() if _belongs(process, group, server.mark)]


def free_port(ports: Sequence[int] = PORTS) -> int:
    """The first port on which nothing listens.

    Raises:
        InsufficientCapacity: all are taken.
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
    """The sentence of a log that tells why a server ended: its last error, else its last line."""
    try:
        text = log.read_text(errors="replace")[-200_000:]
    except OSError:
        return "(no log)"
    return last_error_in(text)


def last_error_in(text: str) -> str:
    """The same of the text of a log."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in text.splitlines() if line.strip()]
    errors = [match[0] for line in lines if (match := _ERROR.search(line)) and "root cause" not in line]
    return (errors or lines or ["(empty log)"])[-1][:500]


# An exception as a traceback ends (or vLLM logs it), or the complaint of argparse.
_ERROR = re.compile(r"(?<![\w.])(?:[a-zA-Z_]+\.)*[A-Z]\w*(?:Error|Exception|NotFound)\b: .+|\berror: .+")


def _exit_error(server: Server, log: Path) -> StepError:
    why = last_error(log)
    if _exit_code(server) == -signal.SIGKILL:
        return InsufficientCapacity(
            f"the {server.kind} server was killed, most often for want of memory", f"see {log}"
        )
    if "address already in use" in why.lower():
        return PortInUse(f"port {server.port} is in use by another process", "set another port, or 0 for a free one")
    if re.search(r"out of memory|OutOfMemory|MemoryError|not enough memory|No available memory", why):
        return InsufficientCapacity(
            f"the {server.kind} server ran out of memory: {why}", "use a smaller model or more memory"
        )
    return StepError(f"the {server.kind} server ended before it answered: {why}", f"see {log}")


def _exit_code(server: Server) -> int | None:
    """Exit code of an ended process, negative for a signal; known to the process that started it only."""
    try:
        code: int | None = psutil.Process(server.pid).wait(timeout=0)
    except psutil.Error:
        return None
    return code


def _listens(server: Server) -> bool:
    """Whether the port is its own: another server there would answer for it while it still loads."""
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


def _creation(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return 0.0


def write(record: Path, server: Server) -> None:
    """Keep what is known of a server."""
    files.write_json(record, dataclasses.asdict(server))
