"""Provide the hardware of a run, and report it.

A local run compares the request with the local machine and uses that, with any provider. On a cluster, the provider of
the site profile creates nodes for the run (``aks.py``, ``karpenter.py``) or checks existing ones
(``existing_nodes.py``). Without a provider, the pods request GPUs and the cluster's autoscaler adds nodes.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from steps.provision import node_providers
from steps.provision.settings import Result, Settings
from steps.runtime import machine
from steps.runtime.pod import is_pod

if TYPE_CHECKING:
    from presets import Sku


def provision(settings: Settings) -> Result:
    """Report the requested hardware, the available or created nodes, and the device that tuning will use.

    Raises:
        StepError: as the provider's ``provision``.
    """
    requested = _sku(settings.instance_type)
    if not is_pod():
        return _on_this_machine(settings, requested)
    print(f"requested: {_request_text(settings, requested)}", flush=True)
    if settings.provider in node_providers.PROVIDERS:
        result: Result = node_providers.provider(settings.provider).provision(settings)
        return result
    return _wait_for_autoscaler(settings, requested)


def _on_this_machine(settings: Settings, requested: Sku | None) -> Result:
    local = machine.read(settings.work)
    device, description = _device(local)
    print(f"local machine: {local}", flush=True)
    if settings.instance_type:
        print(f"nodes on a cluster: {_request_text(settings, requested)}", flush=True)
    if lacking := shortfall(settings, requested, local):
        print(f"less than on a cluster: {'; '.join(lacking)}", flush=True)
    return Result(device, [socket.gethostname()], f"{local}: tuning runs on {description}")


def _wait_for_autoscaler(settings: Settings, requested: Sku | None) -> Result:
    node = os.environ.get("NODE_NAME") or socket.gethostname()
    device = "cuda" if requested is None or requested.compute_capability else "cpu"
    summary = (
        f"this step runs on {node}; the GPU pods request {_request_text(settings, requested)}, "
        "and the cluster's autoscaler adds missing nodes"
    )
    return Result(device, [node], summary)


def shortfall(settings: Settings, requested: Sku | None, local: machine.Machine) -> list[str]:
    """Return what the local machine has less of than the requested nodes."""
    lines = []
    if settings.count > 1:
        lines.append(f"1 of {settings.count} machines")
    if requested is None:
        return lines
    too_few = len(local.gpus) < requested.gpus
    # Drivers reserve a part of the memory: an 80 GiB card reports a little less.
    too_small = any(gpu.memory_gib < requested.gpu_memory_gib * 0.9 for gpu in local.gpus[: requested.gpus])
    if too_few or too_small:
        lines.append(machine.gpu_text(local.gpus))
    if local.cores < requested.vcpus:
        lines.append(f"{local.cores} of {requested.vcpus} vCPUs")
    return lines


def _device(local: machine.Machine) -> tuple[str, str]:
    """Return the device that tuning will use, and its description."""
    built_for_cuda = machine.is_torch_built_with_cuda()
    if local.gpus and built_for_cuda is not False:
        return "cuda", machine.gpu_text(local.gpus)
    if local.gpus:
        return (
            "cpu",
            f"the CPU: the installed torch is built without CUDA and cannot use {local.gpus[0].name}",
        )
    return "cpu", "the CPU, which suits small models and is slow for large ones"


def _sku(name: str) -> Sku | None:
    """Return the data of an instance type; None if none is requested or it is unknown."""
    if not name:
        return None
    import presets

    try:
        return presets.sku(name)
    except presets.UnknownSku as error:
        print(f"{error} (not compared with the local machine)", flush=True)
        return None


def _request_text(settings: Settings, requested: Sku | None) -> str:
    if not settings.instance_type:
        return "any machine"
    facts = f" ({requested.vcpus} vCPUs, {_gpus_text(requested)})" if requested else ""
    return f"{settings.count} x {settings.instance_type}{facts}"


def _gpus_text(requested: Sku) -> str:
    return f"{requested.gpus} x {requested.gpu} {requested.gpu_memory_gib} GiB"
