"""What the pods of all steps have in common: command, outputs, retries, security, and what a GPU pod needs besides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hera.workflows import (
    Artifact,
    EmptyDirVolume,
    Env,
    NoneArchiveStrategy,
    Parameter,
    Resources,
    RetryStrategy,
    SecretEnv,
)
from hera.workflows import models as m

from steps.runtime.options import Options
from workflows.compile import placement
from workflows.compile.arguments import arguments
from workflows.compile.step_template import StepTemplate
from workflows.compile.volumes import SCRATCH, mount
from workflows.plan.model import MODELS, Plan

OUTPUTS = f"{SCRATCH}/outputs"

# Argo gives all of these as text, and -1 for an exit code that nobody could read any more.
POD_LOST = "lastRetry.status == 'Error'"
PREEMPTED = "asInt(lastRetry.exitCode) in [-1, 137, 143]"
# Also killed, but by its own doing: more memory than it may have, or more time.
OWN_FAULT = "lastRetry.message matches 'OOMKilled|longer than'"
# steps/runtime/errors.py: bad input, a gate's no, no capacity, cancelled, out of time.
NOT_RETRYABLE = "asInt(lastRetry.exitCode) in [2, 3, 4, 5, 6]"


@dataclass(frozen=True)
class Retries:
    """How often a step is tried again: after failures of its own, and after a pod that was lost or taken away.

    Argo counts attempts and not their kinds: failures are made up for among the first attempts, losses up to the sum.
    """

    failures: int
    losses: int = 5

    @property
    def expression(self) -> str:
        """Whether another attempt makes sense, for Argo's ``retryStrategy.expression``."""
        return (
            f"{POD_LOST} || !({NOT_RETRYABLE}) && ({PREEMPTED} && !({OWN_FAULT}) || asInt(retries) < {self.failures})"
        )

    def strategy(self, *, on_gpu: bool) -> RetryStrategy:
        """Argo's retry strategy.

        No ``maxDuration``: it counts from the first attempt's start, and would leave a long training without retries.
        """
        # Who waits for a node anyway need not wait longer and longer.
        wait = m.Backoff(duration="10s", factor=None if on_gpu else m.IntOrString(root="2"))
        limit = str(self.failures + self.losses)
        return RetryStrategy(limit=limit, retry_policy="Always", expression=self.expression, backoff=wait)


@dataclass(frozen=True)
class Requests:
    """What a pod asks for; it may use more where the node has it."""

    cpu: str
    memory: str


CONTROL = Requests("250m", "512Mi")
"""Of a step that only asks and tells."""
DATA = Requests("1", "2Gi")
"""Of a step that moves and packs files."""
COMPUTE = Requests("2", "8Gi")
"""Of a step that loads the model."""


def step(
    plan: Plan,
    name: str,
    image: str,
    *,
    command: Sequence[str] = (),
    settings: Options | None = None,
    outputs: Sequence[str],
    artifacts: Mapping[str, str] = MappingProxyType({}),
    mounts: Sequence[m.VolumeMount] = (),
    inputs: Sequence[str] = (),
    env: Sequence[Any] = (),
    requests: Requests = CONTROL,
    retries: Retries,
    timeout: str = "30m",
    on_gpu: bool = False,
    progress: str | None = None,
    grace_seconds: int | None = None,
) -> StepTemplate:
    """The template of one step; ``progress`` is what the UI shows until the step itself tells more.

    Without a ``command`` it is the step of ours of that name. ``artifacts`` are paths by name, of files that go to the
    artifact repository as they are. ``grace_seconds`` has a pod that must leave its node to put its work aside; by
    default Kubernetes' 30.
    """
    needs_model = any(mount.name == "models" for mount in mounts)
    annotations = {"workflows.argoproj.io/progress": progress} if progress else {}
    return StepTemplate(
        name=name,
        image=image,
        command=list(command or ["python", "-m", f"steps.{name}"]),
        args=arguments(settings, inputs) if settings else None,
        inputs=[Parameter(name=key) for key in inputs],
        outputs=[
            *[Parameter(name=key, value_from=m.ValueFrom(path=f"{OUTPUTS}/{key}")) for key in outputs],
            *[Artifact(name=key, path=path, archive=NoneArchiveStrategy()) for key, path in artifacts.items()],
        ],
        env=[
            Env(name="ARGOTUNE_OUTPUTS", value=OUTPUTS),
            *([Env(name="HF_HOME", value=f"{MODELS}/huggingface")] if needs_model else []),
            *([access_token(plan)] if needs_model and plan.model.access_secret else []),
            *env,
        ],
        volume_mounts=[*mounts, mount("scratch", SCRATCH), mount("tmp", "/tmp")],
        retry_strategy=retries.strategy(on_gpu=on_gpu),
        timeout=timeout,
        pod_spec_patch=json.dumps({"terminationGracePeriodSeconds": grace_seconds}) if grace_seconds else None,
        service_account_name=plan.service_accounts.get(name),  # type: ignore[call-overload]
        security_context=m.SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=m.Capabilities(drop=["ALL"]),
        ),
        **(_on_gpu(plan, annotations, requests) if on_gpu else _anywhere(annotations, requests)),
    )


def _anywhere(annotations: dict[str, str], requests: Requests) -> dict[str, Any]:
    return {
        "annotations": annotations or None,
        "resources": Resources(cpu_request=requests.cpu, memory_request=requests.memory),
    }


def _on_gpu(plan: Plan, annotations: dict[str, str], requests: Requests) -> dict[str, Any]:
    """Where a pod that computes may run, KAITO's taint and Azure's spot taint tolerated; and what it may take."""
    tolerate = m.Toleration
    # Neither of the usual autoscalers may move the pod to tidy up; hours of work would begin at the last checkpoint.
    stays = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
    lock = plan.semaphore
    key = m.ConfigMapKeySelector(name=lock.config_map, key=lock.key)
    locks = m.Synchronization(semaphores=[m.SemaphoreRef(config_map_key_ref=key)])
    return {
        "annotations": {**stays, **annotations},
        "resources": Resources(
            cpu_request=requests.cpu,
            memory_request=requests.memory,
            gpus=plan.resource.gpus,
            gpu_flag=plan.resource.gpu_resource,
        ),
        "node_selector": placement.selector(plan),
        "affinity": placement.affinity(plan),
        "tolerations": [
            tolerate(key="sku", operator="Equal", value="gpu", effect="NoSchedule"),
            tolerate(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule"),
            tolerate(key="kubernetes.azure.com/scalesetpriority", operator="Equal", value="spot", effect="NoSchedule"),
        ],
        # Kubernetes gives 64 MiB of shared memory, too little for the processes of a training.
        "volumes": [
            EmptyDirVolume(name="shm", medium="Memory", size_limit=m.Quantity(root="2Gi"), mount_path="/dev/shm")
        ],
        "synchronization": locks if lock.config_map and lock.key else None,
    }


def access_token(plan: Plan, *, optional: bool | None = None) -> SecretEnv:
    """The user's token for the hub; a pod waits for a Secret that is not there, unless it is ``optional``."""
    secret = plan.model.access_secret
    return SecretEnv(name="HF_TOKEN", secret_name=secret, secret_key="HF_TOKEN", optional=optional)


def docker_config(directory: str) -> Env:
    """Return the variable that has registry clients read docker's configuration from a directory."""
    return Env(name="DOCKER_CONFIG", value=directory)
