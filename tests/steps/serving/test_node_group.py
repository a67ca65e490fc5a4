"""The processes of a server on several nodes, with a fake runtime: start, a lost node, another release."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from free_ports import free_port

ROOT = Path(__file__).parents[3]
NODE = """
import sys
from steps.serving import node_group
from steps.serving.node_group import Member
rank, digest, port, group_port, *runtime = sys.argv[1:]
member = Member(2, int(rank), "127.0.0.1", digest, "127.0.0.1", int(port), int(group_port))
sys.exit(node_group.run(member, runtime, {}))
"""
RUNTIME = """
import pathlib, subprocess, sys, time
folder, rank = pathlib.Path(sys.argv[1]), sys.argv[2]
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
worker.stdout.readline()
(folder / f"new-{rank}").write_text(str(worker.pid))
(folder / f"new-{rank}").rename(folder / f"worker-{rank}")
(folder / rank).touch()
time.sleep(600)
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a node; its runtime creates the file of its rank and runs until it is ended."""
    group_port = free_port()
    nodes = []

    def start_node(rank: int, digest: str = "one") -> subprocess.Popen[str]:
        runtime = [sys.executable, "-c", RUNTIME, str(tmp_path), str(rank)]
        arguments = [str(rank), digest, str(free_port()), str(group_port), *runtime]
        node = subprocess.Popen(
            [sys.executable, "-c", NODE, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        nodes.append(node)
        return node

    yield start_node
    for node in nodes:
        kill(node)


def kill(node: subprocess.Popen[str]) -> None:
    """Kill a node with its runtime, as a container ends."""
    if node.poll() is None:
        for process in [*psutil.Process(node.pid).children(recursive=True), node]:
            process.kill()
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
    kill(nodes[lost])
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


def test_workers_of_a_runtime_end_with_it(start: Start, tmp_path: Path) -> None:
    """They ignore SIGTERM, and their parent does not wait for them."""
    leader, follower = start(0), start(1)
    wait_for(lambda: all((tmp_path / f"worker-{rank}").exists() for rank in (0, 1)))
    workers = [psutil.Process(int((tmp_path / f"worker-{rank}").read_text())) for rank in (0, 1)]
    leader.send_signal(signal.SIGTERM)
    assert leader.wait(300) in (0, 128 + signal.SIGTERM)
    assert follower.wait(300) == 1
    wait_for(lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers))


def test_a_follower_serves_until_its_leader_has_ended(start: Start, tmp_path: Path) -> None:
    leader, follower = start(0), start(1)
    wait_for(lambda: (tmp_path / "0").exists() and (tmp_path / "1").exists())
    follower.send_signal(signal.SIGTERM)
    leader.send_signal(signal.SIGTERM)
    assert leader.wait(300) in (0, 128 + signal.SIGTERM)
    assert follower.wait(300) == 0
