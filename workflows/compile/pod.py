"""The pod of a step: command, outputs, retries, security, and the resources and placement of a GPU pod."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from hera.workflows import (
    Artifact,
    EmptyDirVolume,
    Env,
    NoneArchiveStrategy,
    Parameter,
    RawArtifact,
    Resources,
    SecretEnv,
)
from hera.workflows import models as m

from steps.kubernetes import pod_policy
from steps.runtime.options import Options
from workflows.compile import model_access, placement, pod_options
from workflows.compile.arguments import LONG, arguments, long_texts
from workflows.compile.mount_paths import SCRATCH
from workflows.compile.retries import Retries
from workflows.compile.step_template import StepTemplate
from workflows.compile.volumes import mount
from workflows.compile.workflow import KEPT_LOG
from workflows.plan.model import MODELS, Plan
from workflows.plan.pods import for_pod
from workflows.spec.field_types import whole_seconds

OUTPUTS = f"{SCRATCH}/outputs"
TUNE_ACCOUNT = "argotune-tune"
"""Account of argo/install for tune on several nodes."""


PROGRESS = {"workflows.argoproj.io/progress": "0/100"}
"""Progress until the step reports its own. By default a pod has one unit, so that a report would change the sum."""


@dataclass(frozen=True)
class Requests:
    """Resource requests of a pod, which can use more if the node has it."""

    cpu: str
    memory: str


CONTROL = Requests("250m", "512Mi")
"""For a step that only calls APIs."""
DATA = Requests("1", "2Gi")
"""For a step that moves and packs files."""
COMPUTE = Requests("2", "8Gi")
"""For a step that loads the model."""


def step(
    plan: Plan,
    name: str,
    settings: Options | None,
    *,
    image: str = "",
    command: Sequence[str] = (),
    outputs: Sequence[str] | None = None,
    artifacts: Sequence[Artifact] = (),
    files: Mapping[str, str] = MappingProxyType({}),
    mounts: Sequence[m.VolumeMount] = (),
    inputs: Sequence[str] = (),
    defaults: Mapping[str, str] = MappingProxyType({}),
    variables: Mapping[str, str] = MappingProxyType({}),
    env: Sequence[Any] = (),
    requests: Requests = CONTROL,
    retries: Retries,
    timeout: str = "30m",
    on_gpu: bool = False,
    grace_seconds: int | None = None,
    keep_log: bool = False,
    labels: Mapping[str, str] = MappingProxyType({}),
) -> StepTemplate:
    """Return the template of a step.

    Args:
        plan: the plan.
        name: name of the template.
        settings: settings of the step, which become the arguments; None for a custom step.
        image: container image (default: the plan's control image).
        command: command of a custom step (default: argotune's step of that name).
        outputs: names of the output parameters (default: the fields of the step's result).
        artifacts: files that are uploaded to the artifact repository.
        files: contents of files by path, in a volume of the pod: texts that are too long for arguments.
        mounts: volumes, in addition to scratch and ``/tmp``.
        inputs: names of the input parameters; they replace the settings of their names.
        defaults: defaults of inputs that a caller can omit.
        variables: other settings that Argo sets: placeholders by the name of the flag.
        env: additional environment variables.
        requests: CPU and memory.
        retries: number of retries.
        timeout: timeout of one attempt.
        on_gpu: request the plan's GPUs.
        keep_log: keep the finished pod, and so its log, as long as the Workflow.
        labels: additional labels.
        grace_seconds: time to save work when the pod is evicted (default: Kubernetes' 30).
    """
    needs_model = any(mount.name == "models" for mount in mounts)
    access = model_access.environment(plan, name) if needs_model else []
    parameters = result_fields(name) if outputs is None else outputs
    args, long = long_texts(arguments(settings, inputs, variables) if settings else [], LONG, f"{SCRATCH}/inputs")
    fields: dict[str, Any] = dict(
        name=name,
        image=image or plan.images.control,
        command=list(command or ["python", "-m", f"steps.{name}"]),
        args=[pod_policy.escape_references(word) for word in args] if settings else None,
        inputs=[
            *[_input(key, defaults) for key in inputs],
            *[_file(path, text) for path, text in {**files, **long}.items()],
        ],
        outputs=[
            *[_output(key, is_own=settings is not None) for key in parameters],
            *artifacts,
        ],
        env=[
            Env(name="ARGOTUNE_OUTPUTS", value=OUTPUTS),
            *([Env(name="HF_HOME", value=f"{MODELS}/huggingface")] if needs_model else []),
            *([access_token(plan)] if needs_model and plan.model.access_secret else []),
            *access,
            *env,
        ],
        volume_mounts=[
            *mounts,
            *(model_access.mounts(plan) if needs_model else []),
            mount("scratch", SCRATCH),
            mount("tmp", "/tmp"),
        ],
        labels={**_labels(plan, keep_log=keep_log, on_gpu=on_gpu), **labels} or None,
        retry_strategy=retries.strategy(on_gpu=on_gpu),
        **_time_limit(plan, timeout, on_gpu=on_gpu),
        pod_spec_patch=json.dumps({"terminationGracePeriodSeconds": grace_seconds}) if grace_seconds else None,
        service_account_name=account(plan, name),
        security_context=m.SecurityContext.model_validate(pod_policy.CONTAINER_SECURITY_CONTEXT),
        **(_on_gpu(plan, requests) if on_gpu else _anywhere(requests)),
    )
    return StepTemplate(**pod_options.apply(for_pod(plan.pods, name), fields))


def _labels(plan: Plan, *, keep_log: bool, on_gpu: bool) -> dict[str, str]:
    queue = {pod_policy.QUEUE_LABEL: plan.queue} if plan.queue and on_gpu and plan.resource.gpus else {}
    return {**({KEPT_LOG: "true"} if keep_log else {}), **queue}


def _time_limit(plan: Plan, timeout: str, *, on_gpu: bool) -> dict[str, Any]:
    """Return the time limit of an attempt, which does not count the time that a pod waits in a queue."""
    if plan.queue and on_gpu:
        return {"active_deadline_seconds": whole_seconds(timeout)}
    return {"timeout": timeout}


def account(plan: Plan, step: str) -> str | None:
    """Return the account of a step; claims reads what preflight does, and has its account by default.

    On several nodes tune creates a Job, which the default account cannot.
    """
    accounts: Mapping[str, str] = {str(name): account for name, account in plan.service_accounts.items()}
    if step == "tune" and plan.resource.count > 1 and plan.origin("serviceAccount") == "built-in":
        return accounts.get(step, TUNE_ACCOUNT)
    return accounts.get(step) or (accounts.get("preflight") if step == "claims" else None)


def _input(name: str, defaults: Mapping[str, str]) -> Parameter:
    # Hera writes default=None as null.
    return Parameter(name=name, default=defaults[name]) if name in defaults else Parameter(name=name)


def _file(path: str, text: str) -> RawArtifact:
    """Return a file that Argo writes before the step starts; it needs no artifact repository."""
    return RawArtifact(name=PurePosixPath(path).stem, path=path, data=text, archive=NoneArchiveStrategy())


@cache
def result_fields(step: str) -> tuple[str, ...]:
    """Return the output parameters of a step."""
    result = importlib.import_module(f"steps.{step}.settings").Result
    return tuple(field.name.replace("_", "-") for field in dataclasses.fields(result))


def _output(name: str, *, is_own: bool) -> Parameter:
    """Return an output parameter.

    A step that fails writes none. Without a default the executor's container reports that, and hides the step's own
    message in kubectl and the Argo UI. Steps of argotune fail if they cannot write an output; others may forget one.
    """
    default = "" if is_own else None
    return Parameter(name=name, value_from=m.ValueFrom(path=f"{OUTPUTS}/{name}", default=default))


def _anywhere(requests: Requests) -> dict[str, Any]:
    return {
        "annotations": PROGRESS,
        "resources": Resources(cpu_request=requests.cpu, memory_request=requests.memory),
    }


def _on_gpu(plan: Plan, requests: Requests) -> dict[str, Any]:
    """Return placement and resources of a GPU pod."""
    lock = plan.semaphore
    key = m.ConfigMapKeySelector(name=lock.config_map, key=lock.key)
    locks = m.Synchronization(semaphores=[m.SemaphoreRef(config_map_key_ref=key)])
    return {
        "annotations": {**pod_policy.DO_NOT_DISRUPT, **PROGRESS},
        "resources": Resources(
            cpu_request=requests.cpu,
            memory_request=requests.memory,
            gpus=plan.resource.gpus,
            gpu_flag=plan.resource.gpu_resource,
        ),
        "node_selector": placement.selector(plan),
        "affinity": placement.affinity(plan),
        "tolerations": placement.tolerations(),
        # The default of 64 MiB of shared memory is too little for several training processes.
        "volumes": [
            EmptyDirVolume(name="shm", medium="Memory", size_limit=m.Quantity(root="2Gi"), mount_path="/dev/shm")
        ],
        "synchronization": locks if lock.config_map and lock.key else None,
    }


def access_token(plan: Plan, *, optional: bool | None = None) -> SecretEnv:
    """Return the user's hub token; a pod waits for a missing Secret, unless it is ``optional``."""
    secret = plan.model.access_secret
    return SecretEnv(name="HF_TOKEN", secret_name=secret, secret_key="HF_TOKEN", optional=optional)


def docker_config(directory: str) -> Env:
    """Return the variable with the directory of docker's configuration, for registry credentials."""
    return Env(name="DOCKER_CONFIG", value=directory)
