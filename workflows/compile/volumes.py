"""The volumes of a run (temporary, kept between runs, or from the Workspace) and their mount paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hera.workflows import models as m

from steps.oci import secret_volume
from workflows.compile.mount_paths import (
    ADAPTER_SECRET,
    API_KEYS,
    DATA,
    OUTPUT,
    PULL_SECRET,
    PUSH_SECRET,
    WORK,
    adapter_path,
    adapter_volume,
    input_path,
    input_volume,
)
from workflows.plan.model import MODELS, Data, Plan


def mount(name: str, path: str, *, read_only: bool | None = None) -> m.VolumeMount:
    """Return the mount of a volume in a pod."""
    return m.VolumeMount(name=name, mount_path=path, read_only=read_only)


WORK_MOUNT, MODELS_MOUNT = mount("work", WORK), mount("models", MODELS)


def data_mounts(data: Data) -> list[m.VolumeMount]:
    """Return the mounts of a step that reads the rows."""
    return [
        *([mount("data", DATA, read_only=True)] if data.volume is not None else []),
        *(
            mount(input_volume(named.name), input_path(named.name), read_only=True)
            for named in data.inputs
            if named.volume_source is not None
        ),
        *([mount("pull-secret", PULL_SECRET, read_only=True)] if data.image_pull_secrets else []),
    ]


def output_mounts(plan: Plan, *, read_only: bool | None = None) -> list[m.VolumeMount]:
    """Return the mounts of a step that writes or reads packaged adapters."""
    output = plan.output
    return [
        *([mount("output", OUTPUT, read_only=read_only)] if output and output.volume is not None else []),
        *([mount("push-secret", PUSH_SECRET, read_only=True)] if output and output.push_secret else []),
    ]


def adapter_mounts(plan: Plan) -> list[m.VolumeMount]:
    """Return the mounts of the adapters to serve."""
    return [
        mount(adapter_volume(adapter.name), adapter_path(adapter.name), read_only=True)
        for adapter in (plan.rollout.adapters if plan.rollout else [])
        if adapter.volume is not None
    ]


def adapter_secret_mounts(plan: Plan) -> list[m.VolumeMount]:
    """Return the mount of the Secrets that the images of the adapters to serve are pulled with."""
    has_secret = plan.rollout and plan.rollout.pull_secrets
    return [mount("adapter-secret", ADAPTER_SECRET, read_only=True)] if has_secret else []


def api_key_mounts(plan: Plan) -> list[m.VolumeMount]:
    """Return the mount of the Secret with the API keys of clients."""
    has_keys = plan.rollout and plan.rollout.api_keys_secret
    return [mount("api-keys", API_KEYS, read_only=True)] if has_keys else []


def work_claim(plan: Plan) -> m.PersistentVolumeClaim:
    """Return the volume that the steps of a run share."""
    return m.PersistentVolumeClaim(
        metadata=m.ObjectMeta(name="work"),
        spec=m.PersistentVolumeClaimSpec(
            access_modes=["ReadWriteOnce"],
            storage_class_name=plan.storage.storage_class or None,
            resources=m.VolumeResourceRequirements(requests={"storage": m.Quantity(root=plan.storage.size)}),
        ),
    )


def volumes(plan: Plan) -> list[m.Volume]:
    """Return all other volumes."""
    models = m.PersistentVolumeClaimVolumeSource(claim_name=plan.storage.models_claim)
    mounted = [
        m.Volume(name="models", persistent_volume_claim=models),
        m.Volume(name="scratch", empty_dir=m.EmptyDirVolumeSource()),
        m.Volume(name="tmp", empty_dir=m.EmptyDirVolumeSource()),
    ]
    if plan.data and plan.data.volume is not None:
        mounted.append(_user_volume("data", plan.data.volume))
    for named in plan.data.inputs if plan.data else []:
        if named.volume_source is not None:
            mounted.append(_user_volume(input_volume(named.name), named.volume_source))
    if plan.output and plan.output.volume is not None:
        mounted.append(_user_volume("output", plan.output.volume))
    if plan.data and plan.data.image_pull_secrets:
        mounted.append(_registry_secrets("pull-secret", plan.data.image_pull_secrets))
    if plan.output and plan.output.push_secret:
        mounted.append(_registry_secrets("push-secret", [plan.output.push_secret]))
    if plan.rollout and plan.rollout.pull_secrets:
        mounted.append(_registry_secrets("adapter-secret", plan.rollout.pull_secrets))
    if plan.model.image_pull_secret:
        mounted.append(_registry_secrets("model-secret", [plan.model.image_pull_secret]))
    if plan.rollout and plan.rollout.api_keys_secret:
        # Optional as registry Secrets: preflight reports a missing one.
        keys = m.SecretVolumeSource(secret_name=plan.rollout.api_keys_secret, optional=True)
        mounted.append(m.Volume(name="api-keys", secret=keys))
    for adapter in plan.rollout.adapters if plan.rollout else []:
        if adapter.volume is not None:
            mounted.append(_user_volume(adapter_volume(adapter.name), adapter.volume))
    return mounted


def claims(plan: Plan) -> list[str]:
    """Return the names of the PersistentVolumeClaims that must exist before the run."""
    return _claim_names(volumes(plan))


def early_claims(plan: Plan) -> list[str]:
    """Return the PersistentVolumeClaims that the first steps mount (preflight, download, check)."""
    names = {"data", "output", *(input_volume(named.name) for named in (plan.data.inputs if plan.data else []))}
    return _claim_names(volume for volume in volumes(plan) if volume.name in names)


def _claim_names(mounted: Iterable[m.Volume]) -> list[str]:
    sources = [volume.persistent_volume_claim for volume in mounted]
    return sorted({source.claim_name for source in sources if source})


def _registry_secrets(volume: str, secrets: Sequence[str]) -> m.Volume:
    """Return dockerconfigjson Secrets as docker's configuration directory."""
    return m.Volume.model_validate({"name": volume, **secret_volume.volume_source(secrets)})


def _user_volume(name: str, source: dict[str, Any]) -> m.Volume:
    return m.Volume.model_validate({"name": name, **source})
