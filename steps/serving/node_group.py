"""The processes of one server on several nodes: they start together, and end together if a node is lost.

vLLM's own processes do not notice each other's end in all cases: a follower outlives its leader (vllm#32136). So each
follower keeps a connection to the leader. The leader lets vLLM start after all followers have the same adapters, base
model and flags as itself. If a connection ends, vLLM ends on both sides and the containers exit, which their cluster
restarts. A follower has no HTTP server of vLLM; it answers the probes of its pod itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from steps.runtime.retry import Backoff, RetryPolicy
from steps.serving.group_environment import GROUP_PORT
from steps.serving.group_link import GroupLink
from steps.serving.group_probes import answer_probes

MASTER_PORT = 29501
"""Port of the leader for torch.distributed (vLLM's default)."""
POLL_SECONDS = 0.1
JOINING = RetryPolicy(initial_seconds=0.5, max_seconds=5)
"""Waits of a follower for its leader, which can start much later."""
STOP_SECONDS = 20.0
"""Time for vLLM to end after SIGTERM; then it is killed."""
LOST = 1
"""Exit code of a node that has lost another one: the cluster restarts it."""


@dataclass(frozen=True)
class Member:
    """A node of the group."""

    nodes: int
    rank: int
    leader: str
    """Host name of the leader."""
    digest: str = ""
    """Digest of what all nodes must have in common."""
    host: str = "0.0.0.0"
    """Address to listen on."""
    port: int = 5000
    """Port of the HTTP server, and of a follower's probes."""
    group_port: int = GROUP_PORT
    sleep: Callable[[float], None] = field(default=time.sleep, compare=False)


class NodeLost(Exception):
    """Another node of the group is lost."""


def run(member: Member, command: Sequence[str], environment: dict[str, str]) -> int:
    """Start vLLM on this node once all nodes are there; return the exit code when it ends.

    A leader forwards SIGTERM to vLLM. A follower serves until the leader has ended, so that the last requests are
    answered; its pod is killed at the end of its grace period.
    """
    stop = _StopSignal()
    state = _State()
    links: list[GroupLink] = []
    listener = None
    try:
        with contextlib.ExitStack() as stack:
            if member.rank:
                stack.enter_context(answer_probes(member.host, member.port, lambda: state.serving))
                links = [_join(member, stop)]
            else:
                listener = stack.enter_context(socket.create_server((member.host, member.group_port), backlog=128))
                links = _gather(member, listener, stop)
            return _serve(member, command, environment, links, stop, state)
    except NodeLost as error:
        print(f"error: {error}", flush=True)
        return LOST
    except _Stopped:
        return 0
    finally:
        for link in links:
            link.close()


class _Stopped(Exception):
    """SIGTERM arrived before vLLM was started."""


class _StopSignal:
    """Records SIGTERM."""

    def __init__(self) -> None:
        self.received = False
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self.received = True

    def check(self) -> None:
        """Raise ``_Stopped`` if the signal has arrived."""
        if self.received:
            raise _Stopped


@dataclass
class _State:
    serving: bool = False
    """True while vLLM runs."""


def _gather(member: Member, listener: socket.socket, stop: _StopSignal) -> list[GroupLink]:
    """Return the links to all followers, after each has reported the digest of the leader."""
    listener.setblocking(False)
    new: list[GroupLink] = []
    joined: dict[int, GroupLink] = {}
    print(f"leader: waiting for {member.nodes - 1} more nodes", flush=True)
    while len(joined) < member.nodes - 1:
        stop.check()
        with contextlib.suppress(BlockingIOError, InterruptedError, ConnectionError):
            new.append(GroupLink(listener.accept()[0]))
        for link in list(new):
            for message in link.poll()[:1]:
                new.remove(link)
                _admit(member, link, message, joined)
            if link.lost and link in new:
                new.remove(link)
                link.close()
        for rank, link in list(joined.items()):
            link.poll()
            if link.lost:
                print(f"leader: node {rank} {link.lost}; waiting for it", flush=True)
                joined.pop(rank).close()
        member.sleep(POLL_SECONDS)
    for link in joined.values():
        link.send({"start": True})
    return [joined[rank] for rank in sorted(joined)]


def _admit(member: Member, link: GroupLink, message: dict[str, object], joined: dict[int, GroupLink]) -> None:
    """Add a follower, unless it is of another release."""
    rank = message.get("rank")
    if not isinstance(rank, int) or not 0 < rank < member.nodes or message.get("digest") != member.digest:
        print(f"leader: rejected node {rank}: it has another release", flush=True)
        link.close()
        return
    if rank in joined:
        joined[rank].close()
    joined[rank] = link
    print(f"leader: node {rank} joined ({len(joined)} of {member.nodes - 1})", flush=True)


def _join(member: Member, stop: _StopSignal) -> GroupLink:
    """Return the link to the leader, once all nodes are there."""
    reported, backoff = "", Backoff(JOINING, sleep=member.sleep)
    while True:
        stop.check()
        try:
            link = GroupLink(socket.create_connection((member.leader, member.group_port), timeout=10))
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            reason = _wait_for_start(member, link, stop)
            if not reason:
                return link
            link.close()
        if reason != reported:
            reported = reason
            print(f"node {member.rank}: waiting for the leader {member.leader}: {reason}", flush=True)
        backoff.pause()


def _wait_for_start(member: Member, link: GroupLink, stop: _StopSignal) -> str:
    """Return "" once the leader starts the group, or the reason why the connection ended."""
    link.send({"rank": member.rank, "digest": member.digest})
    while not link.lost:
        stop.check()
        if any(message.get("start") for message in link.poll()):
            return ""
        member.sleep(POLL_SECONDS)
    return link.lost


def _serve(
    member: Member,
    command: Sequence[str],
    environment: dict[str, str],
    links: list[GroupLink],
    stop: _StopSignal,
    state: _State,
) -> int:
    """Run vLLM until it ends; end it if a link does.

    Raises:
        NodeLost: A link has ended.
    """
    print(f"starting node {member.rank} of {member.nodes}: {' '.join(command)}", flush=True)
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    state.serving, forwarded = True, False
    try:
        while (code := process.poll()) is None:
            if stop.received and not member.rank and not forwarded:
                process.terminate()
                forwarded = True
            for number, link in enumerate(links):
                link.poll()
                if link.lost and member.rank and stop.received:
                    return 0
                if link.lost:
                    lost = number + 1 if not member.rank else 0
                    raise NodeLost(f"lost node {lost} of the group ({link.lost}); all nodes restart")
            member.sleep(POLL_SECONDS)
        return code if code >= 0 else 128 - code
    finally:
        state.serving = False
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, at the latest after ``STOP_SECONDS``, and what is left of its session.

    The workers of vLLM can outlive it, and then keep the port of the group.
    """
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
