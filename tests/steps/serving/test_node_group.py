"""The processes of a server on several nodes, with a fake runtime: start, a lost node, another release."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NODE = """
import sys
from steps.serving import node_group
from steps.serving.node_group import Member
rank, digest, port, group_port, *runtime = sys.argv[1:]
member = Member(2, int(rank), "127.0.0.1", digest, "127.0.0.1", int(port), int(group_port))
sys.exit(node_group.run(member, runtime, {}))
"""
Start = Callable[..., subprocess.Popen[str]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a node; its runtime creates the file of its rank and runs until it is ended."""
    group_port = free_port()
    nodes = []

    def start_node(rank: int, digest: str = "one") -> subprocess.Popen[str]:
        script = f"import pathlib, time; pathlib.Path({str(tmp_path)!r}, str({rank})).touch(); time.sleep(600)"
        arguments = [str(rank), digest, str(free_port()), str(group_port), sys.executable, "-c", script]
        node = subprocess.Popen(
            [sys.executable, "-c", NODE, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        nodes.append(node)
        return node

    yield start_node
    for node in nodes:
        node.kill()
        node.wait()


def wait_for(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.02)


def wait_for_line(node: subprocess.Popen[str], text: str) -> None:
    assert node.stdout
    assert any(text in line for line in iter(node.stdout.readline, ""))


@pytest.mark.parametrize("lost", [0, 1])
def test_all_nodes_end_if_one_is_lost(start: Start, tmp_path: Path, lost: int) -> None:
    leader = start(0)
    wait_for_line(leader, "waiting for 1 more nodes")
    assert not (tmp_path / "0").exists()
    nodes = [leader, start(1)]
    wait_for(lambda: (tmp_path / "0").exists() and (tmp_path / "1").exists())
    nodes[lost].kill()
    other = nodes[1 - lost]
    assert other.wait(300) == 1
    assert other.stdout and f"error: lost node {lost} of the group" in other.stdout.read()


def test_a_node_of_another_release_does_not_join(start: Start, tmp_path: Path) -> None:
    leader = start(0)
    start(1, "two")
    wait_for_line(leader, "rejected node 1: it has another release")
    assert not (tmp_path / "0").exists()
    start(1)
    wait_for(lambda: (tmp_path / "0").exists() and (tmp_path / "1").exists())


def test_a_follower_serves_until_its_leader_has_ended(start: Start, tmp_path: Path) -> None:
    leader, follower = start(0), start(1)
    wait_for(lambda: (tmp_path / "0").exists() and (tmp_path / "1").exists())
    follower.send_signal(signal.SIGTERM)
    leader.send_signal(signal.SIGTERM)
    assert leader.wait(300) in (0, 128 + signal.SIGTERM)
    assert follower.wait(300) == 0
