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

if TYPE_CHECKING:
    from presets import Sku


def provision(settings: Settings) -> Result:
    """Report what was asked for, what is there or was made, and the device that tuning will use.

    Raises:
        StepError: as the provider's ``provision``.
    """
    requested = _sku(settings.instance_type)
    print(f"asked for: {_asked_text(settings, requested)}", flush=True)
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return _on_this_machine(settings, requested)
    if settings.provider in node_providers.PROVIDERS:
        made: Result = node_providers.provider(settings.provider).provision(settings)
        return made
    return _by_the_autoscaler(settings, requested)


def _on_this_machine(settings: Settings, requested: Sku | None) -> Result:
    here = machine.read(settings.work)
    device, doing = _device(here)
    print(f"here: {here}", flush=True)
    for line in shortfall(settings, requested, here):
        print(f"short: {line}", flush=True)
    return Result(device, [socket.gethostname()], f"{here}: tuning runs on {doing}")


def _by_the_autoscaler(settings: Settings, requested: Sku | None) -> Result:
    node = os.environ.get("NODE_NAME") or socket.gethostname()
    device = "cuda" if requested is None or requested.compute_capability else "cpu"
    summary = (
        f"this step runs on {node}; the pods that compute ask for {_asked_text(settings, requested)} themselves, "
        "and the cluster's autoscaler brings nodes that are not there yet"
    )
    return Result(device, [node], summary)


def shortfall(settings: Settings, requested: Sku | None, here: machine.Machine) -> list[str]:
    """Return what this machine is missing, one sentence each."""
    lines = []
    if settings.count > 1:
        lines.append(f"{settings.count} machines asked for; this is one")
    if requested is None:
        return lines
    if len(here.gpus) < requested.gpus:
        lines.append(f"{_gpus_text(requested)} asked for; here: {machine.gpu_text(here.gpus)}")
    elif any(gpu.memory_gib < requested.gpu_memory_gib * 0.9 for gpu in here.gpus[: requested.gpus]):
        # Drivers keep a part of the memory for themselves: an 80 GiB card reports a little less.
        lines.append(f"{requested.gpu_memory_gib} GiB a GPU asked for; here: {machine.gpu_text(here.gpus)}")
    if here.cores < requested.vcpus:
        lines.append(f"{requested.vcpus} vCPUs asked for; {here.cores} here")
    return lines


def _device(here: machine.Machine) -> tuple[str, str]:
    """Device that tuning will use, and its description."""
    built_for_cuda = machine.is_torch_built_with_cuda()
    if here.gpus and built_for_cuda is not False:
        return "cuda", machine.gpu_text(here.gpus)
    if here.gpus:
        return "cpu", f"the CPU, because the installed torch is built without CUDA (it can't use {here.gpus[0].name})"
    return "cpu", "the CPU in bfloat16, which suits small models and is slow for large ones"


def _sku(name: str) -> Sku | None:
    """Return the data of an instance type; None if none is requested or it is unknown."""
    if not name:
        return None
    import presets

    try:
        return presets.sku(name)
    except presets.UnknownSku as error:
        print(f"{error} (taken as it is: there are no facts to compare)", flush=True)
        return None


def _asked_text(settings: Settings, requested: Sku | None) -> str:
    if not settings.instance_type:
        return "no particular machine"
    facts = f" ({requested.vcpus} vCPUs, {_gpus_text(requested)})" if requested else ""
    return f"{settings.count} x {settings.instance_type}{facts}"


def _gpus_text(requested: Sku) -> str:
    return f"{requested.gpus} x {requested.gpu} {requested.gpu_memory_gib} GiB"
