"""The volumes of a run: made for it, kept between runs, or named by the Workspace; and where they are mounted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hera.workflows import models as m

from workflows.plan.model import Plan

WORK = "/mnt/work"
DATA = "/mnt/data"
OUTPUT = "/mnt/output"
PULL_SECRET = "/mnt/pull-secret"
PUSH_SECRET = "/mnt/push-secret"
ADAPTER_SECRET = "/mnt/adapter-secret"


@dataclass(frozen=True)
class WorkPaths:
    """Where in the work volume an adapter is made: in the volume itself, or in a folder of each candidate."""

    dataset: str = "dataset"
    """Folder that holds the rows."""
    candidates: bool = False
    """Whether there are several adapters; templates then have the input ``candidate``, the name of the folder."""

    @property
    def inputs(self) -> list[str]:
        """Names of inputs that say where it is."""
        return ["candidate"] if self.candidates else []

    @property
    def flags(self) -> dict[str, str]:
        """Flags of steps that say where it is."""
        work = f"{WORK}/candidates/{{{{inputs.parameters.candidate}}}}" if self.candidates else WORK
        rows = f"{WORK}/{self.dataset}"
        return {"work": work, **({"dataset": rows} if rows != f"{work}/dataset" else {})}


def work_claim(plan: Plan) -> m.PersistentVolumeClaim:
    """The volume that the steps of a run share."""
    return m.PersistentVolumeClaim(
        metadata=m.ObjectMeta(name="work"),
        spec=m.PersistentVolumeClaimSpec(
            access_modes=["ReadWriteOnce"],
            storage_class_name=plan.storage.storage_class or None,
            resources=m.VolumeResourceRequirements(requests={"storage": m.Quantity(root=plan.storage.size)}),
        ),
    )


def volumes(plan: Plan) -> list[m.Volume]:
    """All other volumes."""
    models = m.PersistentVolumeClaimVolumeSource(claim_name=plan.storage.models_claim)
    found = [
        m.Volume(name="models", persistent_volume_claim=models),
        m.Volume(name="scratch", empty_dir=m.EmptyDirVolumeSource()),
        m.Volume(name="tmp", empty_dir=m.EmptyDirVolumeSource()),
    ]
    if plan.data and plan.data.volume is not None:
        found.append(_user_volume("data", plan.data.volume))
    if plan.output and plan.output.volume is not None:
        found.append(_user_volume("output", plan.output.volume))
    if plan.data and plan.data.image_pull_secrets:
        found.append(_registry_secret("pull-secret", plan.data.image_pull_secrets[0]))
    if plan.output and plan.output.push_secret:
        found.append(_registry_secret("push-secret", plan.output.push_secret))
    if plan.rollout and plan.rollout.pull_secret:
        found.append(_registry_secret("adapter-secret", plan.rollout.pull_secret))
    for adapter in plan.rollout.adapters if plan.rollout else []:
        if adapter.volume is not None:
            found.append(_user_volume(adapter_volume(adapter.name), adapter.volume))
    return found


def claims(plan: Plan) -> list[str]:
    """Names of the PersistentVolumeClaims that must be there before the run."""
    found = [volume.persistent_volume_claim for volume in volumes(plan)]
    return sorted({claim.claim_name for claim in found if claim})


def adapter_volume(name: str) -> str:
    """Name of the volume that holds an adapter to serve."""
    return f"adapter-{name}"


def _registry_secret(volume: str, secret: str) -> m.Volume:
    """A dockerconfigjson Secret as docker's configuration folder.

    Optional: without it the step says which credentials it lacks, where a pod would hang unexplained.
    """
    items = [m.KeyToPath(key=".dockerconfigjson", path="config.json")]
    return m.Volume(name=volume, secret=m.SecretVolumeSource(secret_name=secret, items=items, optional=True))


def _user_volume(name: str, source: dict[str, Any]) -> m.Volume:
    return m.Volume.model_validate({"name": name, **source})
