"""The real vLLM on two nodes, which are two processes here: they answer together, and end together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from free_ports import free_port
from random_models import save_vllm_model
from test_node_group import kill
from vllm_command import check_next_token, next_token_request, write_command

from steps.models.adapter import adapter_digest
from steps.serving import desired_adapters, group_environment, group_flags, node_group
from steps.serving.desired_adapters import DesiredAdapter

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
HOST = "127.0.0.1"
WAIT_SECONDS = 900


@dataclass
class Nodes:
    """A server of two nodes."""

    leader: subprocess.Popen[str]
    follower: subprocess.Popen[str]
    endpoint: str
    expected: dict[str, Any]
    """What transformers predicts, and the prompt."""


@pytest.fixture(scope="module")
def nodes(vllm: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """The nodes, started by the command and with the flags and variables of the pods of a group."""
    folder = tmp_path_factory.mktemp("nodes")
    expected = save_vllm_model(folder / "model", "llama")
    environment = write_environment(folder, vllm)
    arguments = {
        "dtype": "float32", "max-model-len": 128, "max-num-seqs": 4,
        "enforce-eager": True, "enable-lora": True, "max-loras": 2, "max-lora-rank": 8,
        # The CPU build fails with pipeline parallelism, the default across nodes: its followers have no buffers.
        **group_flags.parallel_arguments({group_flags.TENSOR: 2}, 2, 0),
    }  # fmt: skip
    ports = [free_port(), free_port()]
    running = []
    for rank, port in enumerate(ports):
        flags = {"model": folder / "model", "server-arguments": json.dumps(arguments), "host": HOST, "port": port}
        command = [sys.executable, "-m", "steps.serving.serve_pod", "--nodes", "2"]
        command += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        own = environment | {group_environment.RANK_VARIABLE: str(rank)}
        with (folder / f"node-{rank}.log").open("w") as log:
            running.append(
                subprocess.Popen(command, cwd=ROOT, env=own, stdout=log, stderr=subprocess.STDOUT, text=True)
            )
    started = Nodes(*running, f"http://{HOST}:{ports[0]}", expected)
    try:
        wait_until_ready(started, folder)
        yield started
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(300)


def write_environment(folder: Path, vllm: str) -> dict[str, str]:
    """Write the desired adapters and a command of vLLM; return the environment of both nodes."""
    adapter = folder / "model" / "adapter"
    desired = DesiredAdapter("tuned", adapter_digest(adapter), path=str(adapter))
    (folder / "adapters.json").write_text(desired_adapters.serialize([desired]))
    # PyTorch compiles an operation of tensor parallelism wrongly for fewer instructions than the CPU has.
    inherited = {key: value for key, value in os.environ.items() if key != "ATEN_CPU_CAPABILITY"}
    return inherited | {
        "ARGOTUNE_VLLM": str(write_command(folder / "vllm", vllm)),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "VLLM_HOST_IP": HOST,
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        group_environment.LEADER_VARIABLES[0]: HOST,
        desired_adapters.FILE_VARIABLE: str(folder / "adapters.json"),
        desired_adapters.FOLDER_VARIABLE: str(folder / "fetched"),
    }


def wait_until_ready(nodes: Nodes, folder: Path) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while True:
        logs = "\n".join((folder / f"node-{rank}.log").read_text()[-3000:] for rank in (0, 1))
        assert nodes.leader.poll() is None and nodes.follower.poll() is None and time.monotonic() < end, logs
        try:
            if "tuned" in requests.get(f"{nodes.endpoint}/v1/models", timeout=30).text:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.5)


def test_both_nodes_compute_the_answer(nodes: Nodes) -> None:
    """The layers are split between them: each alone would answer otherwise."""
    for name, model in (("base", "model"), ("tuned", "tuned")):
        request = next_token_request(model, nodes.expected["prompt"])
        answer = requests.post(f"{nodes.endpoint}/v1/completions", json=request, timeout=WAIT_SECONDS).json()
        check_next_token(answer, nodes.expected[name], name)


def test_a_lost_node_ends_the_other(nodes: Nodes) -> None:
    kill(nodes.follower)
    assert nodes.leader.wait(WAIT_SECONDS) == node_group.LOST
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{nodes.endpoint}/health", timeout=30)
