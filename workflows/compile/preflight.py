"""The template of the step that asks, before anything is taken, all that can be asked for nothing."""

from __future__ import annotations

from typing import Any

from hera.workflows import Env
from hera.workflows import models as m

from workflows.compile import placement, pod, tracking
from workflows.compile.pod import SCRATCH, Retries, mount
from workflows.compile.step_template import StepTemplate
from workflows.compile.volumes import ADAPTER_SECRET, DATA, OUTPUT, PULL_SECRET, PUSH_SECRET, claims
from workflows.plan.model import Adapter, Data, Output, Plan

Flags = dict[str, Any]
Mounts = list[m.VolumeMount]


def preflight(plan: Plan) -> StepTemplate:
    """Looks at data, model, registry, secrets, storage and quota. Without the work volume: nothing is taken yet.

    With a schedule it runs when there is something to tune, so the data is here already.
    """
    flags: Flags = {
        **placement.provision_flags(plan),
        "instance-type": plan.resource.instance_type,
        "count": plan.resource.count,
        "gpus": plan.resource.gpus,
        "gpu-resource": plan.resource.gpu_resource,
        "preset": plan.model.preset,
        "model": plan.model.repository,
        "revision": plan.model.revision,
        "access-secret": plan.model.access_secret,
        "storage-class": plan.storage.storage_class,
        "claims": claims(plan),
        **tracking.preflight_flags(plan),
    }
    mounts: Mounts = []
    if plan.data and not plan.schedule:
        flags |= _data(plan.data, mounts)
    if plan.rollout:
        flags |= _adapters(plan.rollout.adapters, plan.rollout.pull_secret, mounts)
    if plan.output:
        flags |= _output(plan.output, mounts, moves=plan.schedule is not None)
    flags["registry-secrets"] = _registry_secrets(plan)
    inputs = [name for name in ("data-urls", "image", "push") if f"{{{{inputs.parameters.{name}}}}}" in flags.values()]
    pushes = plan.output and plan.output.push_secret
    return pod.step(
        plan,
        "preflight",
        plan.images.control,
        flags={"work": SCRATCH, **{name: value for name, value in flags.items() if value}},
        inputs=inputs,
        outputs=["summary", "checked"],
        mounts=mounts,
        env=[
            *([pod.access_token(plan, optional=True)] if plan.model.access_secret else []),
            *([Env(name="DOCKER_CONFIG", value=PUSH_SECRET)] if pushes else []),
            *tracking.environment(plan),
        ],
        retries=Retries(2),
        timeout="10m",
    )


def _data(data: Data, mounts: Mounts) -> Flags:
    flags: Flags = {"allow-private-hosts": data.allow_private_hosts}
    if data.volume is not None:
        flags["source"] = DATA
        mounts.append(mount("data", DATA, read_only=True))
    elif data.image:
        flags["data-image"] = data.image
    else:
        flags["urls"] = "{{inputs.parameters.data-urls}}"
    if data.image_pull_secrets:
        flags["pull-config"] = PULL_SECRET
        mounts.append(mount("pull-secret", PULL_SECRET, read_only=True))
    return flags


def _adapters(adapters: list[Adapter], pull_secret: str, mounts: Mounts) -> Flags:
    flags: Flags = {"adapter-images": [adapter.image for adapter in adapters if adapter.image]}
    if pull_secret:
        flags["adapter-config"] = ADAPTER_SECRET
        mounts.append(mount("adapter-secret", ADAPTER_SECRET, read_only=True))
    return flags


def _output(output: Output, mounts: Mounts, *, moves: bool) -> Flags:
    flags: Flags = {"image": "{{inputs.parameters.image}}", "push": "{{inputs.parameters.push}}"}
    flags["immutable"] = output.immutable and not moves
    if output.volume is not None:
        flags["output"] = OUTPUT
        mounts.append(mount("output", OUTPUT))
    if output.push_secret:
        mounts.append(mount("push-secret", PUSH_SECRET, read_only=True))
    return flags


def _registry_secrets(plan: Plan) -> list[str]:
    """Names, in the order in which the step looks at their folders."""
    of_data = plan.data.image_pull_secrets[:1] if plan.data and not plan.schedule else []
    of_adapters = [plan.rollout.pull_secret] if plan.rollout and plan.rollout.pull_secret else []
    of_output = [plan.output.push_secret] if plan.output and plan.output.push_secret else []
    return [*of_data, *of_adapters, *of_output]
