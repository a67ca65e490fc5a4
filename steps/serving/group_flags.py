"""The flags of vLLM for a server on several nodes: tensor parallel within a node, pipeline parallel across nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steps.runtime.errors import BadInput

TENSOR, PIPELINE, BACKEND = "tensor-parallel-size", "pipeline-parallel-size", "distributed-executor-backend"
PROCESSES = "mp"
"""vLLM's backend that starts a process for each GPU of a node itself, without Ray."""


def parallel_arguments(user_arguments: Mapping[str, Any], nodes: int, gpus: int) -> dict[str, Any]:
    """Return the flags that place a model on all GPUs of some nodes.

    Args:
        user_arguments: Normalized flags of the user, which can set the tensor parallel size.
        nodes: Number of nodes.
        gpus: GPUs of each node; 0: a CPU, which counts as one.

    Raises:
        BadInput: The user's flags use another number of GPUs, or another backend.
    """
    total = max(1, gpus) * nodes
    tensor = _whole(user_arguments, TENSOR, max(1, gpus))
    pipeline = _whole(user_arguments, PIPELINE, max(1, total // tensor))
    backend = user_arguments.get(BACKEND, PROCESSES)
    if tensor * pipeline != total:
        message = f"{TENSOR} {tensor} x {PIPELINE} {pipeline} is not the {total} GPUs of {nodes} nodes"
        raise BadInput(message, f"remove {TENSOR} and {PIPELINE} from inference_config.yaml")
    if backend != PROCESSES:
        message = f"{BACKEND} {backend} cannot be combined with several nodes"
        raise BadInput(message, f"remove it: vLLM connects the nodes with {PROCESSES}")
    return {TENSOR: tensor, PIPELINE: pipeline, BACKEND: PROCESSES}


def node_arguments(nodes: int, rank: int, leader: str, master_port: int) -> dict[str, Any]:
    """Return the flags of one node."""
    flags: dict[str, Any] = {
        "nnodes": nodes, "node-rank": rank, "master-addr": leader, "master-port": master_port
    }  # fmt: skip
    return flags | ({"headless": True} if rank else {})


def _whole(arguments: Mapping[str, Any], flag: str, default: int) -> int:
    """Return the number of a flag.

    Raises:
        BadInput: It is not a positive whole number.
    """
    value = str(arguments.get(flag, default))
    if not value.isdecimal() or int(value) < 1:
        raise BadInput(f"{flag}: {value!r} is not a number of GPUs", "write a whole number of at least 1")
    return int(value)
