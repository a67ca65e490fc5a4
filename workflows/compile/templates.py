"""One Argo template a step: the image it runs in, its flags, its output parameters, and what its pod needs.

Each function makes the template of the step of its name. What a user may want to change at submit time comes in as an
input parameter; the rest of the plan stands in the arguments, so that the Argo UI shows what will run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from hera.workflows import Container, Env, Parameter, Resources, RetryStrategy, SecretEnv
from hera.workflows import models as m

from workflows.plan import Plan, as_json
from workflows.spec.pipeline import seconds

T = TypeVar("T")

WORK = "/mnt/work"
MODELS = "/mnt/models"
DATA = "/mnt/data"
OUTPUT = "/mnt/output"
SCRATCH = "/mnt/scratch"
OUTPUTS = f"{SCRATCH}/outputs"
PULL_SECRET = "/mnt/pull-secret"
PUSH_SECRET = "/mnt/push-secret"

# Exit codes 2 to 6 tell that trying again can't help (steps/errors.py); a lost pod is an Error.
RETRY_HELPS = "lastRetry.status == 'Error' || asInt(lastRetry.exitCode) not in [2, 3, 4, 5, 6]"


def provision(plan: Plan) -> Container:
    """Makes sure that there is something to compute on. Without the work volume, so that it runs beside download."""
    return _step(
        plan,
        "provision",
        plan.images.control,
        flags={"work": SCRATCH, "instance-type": plan.resource.instance_type, "count": plan.resource.count},
        outputs=["device", "nodes", "summary"],
        mounts=[],
    )


def download(plan: Plan) -> Container:
    """Fetches, checks and splits the rows, on a CPU node."""
    data = _given(plan.data)
    flags: dict[str, Any] = {
        "work": WORK,
        "eval-split": data.eval_split,
        "shuffle": data.shuffle,
        "seed": data.seed,
        "allow-private-hosts": data.allow_private_hosts,
    }
    mounts = [_mount("work", WORK)]
    inputs = []
    if data.volume is not None:
        flags["source"] = DATA
        mounts.append(_mount("data", DATA, read_only=True))
    elif data.image:
        flags["image"] = data.image
    else:
        inputs = ["data-urls"]
        flags["urls"] = _input("data-urls")
    env: list[Any] = []
    if data.image_pull_secrets:
        mounts.append(_mount("pull-secret", PULL_SECRET, read_only=True))
        env.append(Env(name="DOCKER_CONFIG", value=PULL_SECRET))
    return _step(
        plan,
        "download",
        plan.images.control,
        flags=flags,
        inputs=inputs,
        outputs=["rows", "eval-rows", "data-digest", "data-format"],
        mounts=mounts,
        env=env,
        retries=5,
        timeout="12h",
    )


TUNING_INPUTS = ["epochs", "max-steps", "learning-rate", "batch-size", "rank", "alpha"]


def tune(plan: Plan) -> Container:
    """Trains the adapter, on a GPU node where the plan asks for one."""
    tuning = _given(plan.tuning)
    return _step(
        plan,
        "tune",
        plan.images.tune,
        flags={
            "work": WORK,
            **_model(plan),
            "method": tuning.method,
            **{name: _input(name) for name in TUNING_INPUTS},
            "dropout": tuning.dropout,
            "target-modules": tuning.target_modules,
            "max-length": tuning.max_length,
            "seed": tuning.seed,
            "training-arguments": tuning.training_arguments,
            "lora-config": tuning.lora_config,
            "quantization-config": tuning.quantization_config,
            "model-config": tuning.model_arguments,
            "data-digest": _input("data-digest"),
        },
        inputs=[*TUNING_INPUTS, "data-digest"],
        outputs=["adapter-digest", "train-loss", "steps", "device", "tokens-per-second"],
        mounts=[_mount("work", WORK), _mount("models", MODELS)],
        retries=tuning.retries,
        timeout=tuning.timeout,
        on_gpu=True,
    )


def evaluate(plan: Plan) -> Container:
    """Compares base and adapter on the held-out rows and gives the verdict."""
    tuning, evaluation = _given(plan.tuning), _given(plan.evaluation)
    return _step(
        plan,
        "evaluate",
        plan.images.tune,
        flags={
            "work": WORK,
            **_model(plan),
            "method": tuning.method,
            "quantization-config": tuning.quantization_config,
            "max-length": tuning.max_length,
            "samples": evaluation.samples,
            "max-new-tokens": evaluation.max_new_tokens,
            "max-loss-ratio": evaluation.max_loss_ratio,
            "seed": tuning.seed,
            "adapter-digest": _input("adapter-digest"),
            "data-digest": _input("data-digest"),
        },
        inputs=["adapter-digest", "data-digest"],
        outputs=["base-loss", "adapter-loss", "base-perplexity", "adapter-perplexity", "verdict"],
        mounts=[_mount("work", WORK), _mount("models", MODELS)],
        retries=2,
        timeout="4h",
        on_gpu=True,
    )


def package(plan: Plan) -> Container:
    """Builds the image of the adapter and pushes it."""
    output = _given(plan.output)
    flags = {
        "work": WORK,
        "image": _input("image"),
        "push": _input("push"),
        **_model(plan),
        "adapter-digest": _input("adapter-digest"),
        "data-digest": _input("data-digest"),
    }
    mounts = [_mount("work", WORK)]
    env: list[Any] = []
    if output.volume is not None:
        flags["output"] = OUTPUT
        mounts.append(_mount("output", OUTPUT))
    if output.push_secret:
        mounts.append(_mount("push-secret", PUSH_SECRET, read_only=True))
        env.append(Env(name="DOCKER_CONFIG", value=PUSH_SECRET))
    return _step(
        plan,
        "package",
        plan.images.control,
        flags=flags,
        inputs=["image", "push", "adapter-digest", "data-digest"],
        outputs=["image-digest", "image-reference", "size-bytes", "pushed"],
        mounts=mounts,
        env=env,
        retries=5,
        timeout="2h",
    )


def rollout(plan: Plan) -> Container:
    """Puts base and adapters in service and asks the question."""
    chosen = _given(plan.rollout)
    inputs = ["image-digest"] if plan.tuning else []
    mounts = [_mount("work", WORK), _mount("models", MODELS)]
    adapters: list[dict[str, str]] = [{"name": plan.name, "path": "adapter"}] if plan.tuning else []
    folders: dict[str, str] = {}
    for adapter in chosen.adapters:
        if adapter.volume is None:
            adapters.append({"name": adapter.name, "image": adapter.image})
        else:
            folders[adapter.name] = f"/mnt/adapter/{adapter.name}"
            mounts.append(_mount(adapter_volume(adapter.name), folders[adapter.name], read_only=True))
    return _step(
        plan,
        "rollout",
        plan.images.serve,
        flags={
            "work": WORK,
            "name": plan.name,
            **_model(plan),
            "adapters": adapters,
            **({"adapter-folders": [folders[name] for name in folders]} if folders else {}),
            "question": chosen.question,
            "server-arguments": chosen.server_arguments,
            "port": chosen.port,
            "deadline-seconds": seconds(chosen.deadline),
            **{name: _input(name) for name in inputs},
        },
        inputs=inputs,
        outputs=["endpoint", "answer", "base-answer", "server"],
        mounts=mounts,
        retries=1,
        timeout="1h",
    )


def release(plan: Plan) -> Container:
    """Gives back the nodes of this run, however it ended."""
    return _step(
        plan, "release", plan.images.control, flags={"work": SCRATCH}, outputs=["summary"], mounts=[], retries=5
    )


def report(plan: Plan) -> Container:
    """Writes the report of the run, however it ended."""
    return _step(
        plan,
        "report",
        plan.images.control,
        flags={
            "work": WORK,
            "plan": as_json(plan),
            "status": "{{workflow.status}}",
            "failures": "{{workflow.failures}}",
        },
        outputs=["report-path"],
        mounts=[_mount("work", WORK)],
    )


def adapter_volume(name: str) -> str:
    """Name of the volume that holds an adapter to serve."""
    return f"adapter-{name}"


def _step(
    plan: Plan,
    name: str,
    image: str,
    *,
    flags: Mapping[str, Any],
    outputs: Sequence[str],
    mounts: Sequence[m.VolumeMount],
    inputs: Sequence[str] = (),
    env: Sequence[Any] = (),
    retries: int = 2,
    timeout: str = "30m",
    on_gpu: bool = False,
) -> Container:
    needs_model = any(mount.name == "models" for mount in mounts)
    return Container(
        name=name,
        image=image,
        command=["python", "-m", f"steps.{name}"],
        args=[word for flag, value in flags.items() for word in (f"--{flag}", _text(value))],
        inputs=[Parameter(name=key) for key in inputs],
        outputs=[Parameter(name=key, value_from=m.ValueFrom(path=f"{OUTPUTS}/{key}")) for key in outputs],
        env=[
            Env(name="ARGOTUNE_OUTPUTS", value=OUTPUTS),
            *([Env(name="HF_HOME", value=f"{MODELS}/huggingface")] if needs_model else []),
            *([_access_token(plan)] if needs_model and plan.model.access_secret else []),
            *env,
        ],
        volume_mounts=[*mounts, _mount("scratch", SCRATCH), _mount("tmp", "/tmp")],
        retry_strategy=RetryStrategy(
            limit=str(retries),
            retry_policy="Always",
            expression=RETRY_HELPS,
            backoff=m.Backoff(duration="10s", factor=m.IntOrString(root="2"), max_duration="10m"),
        ),
        timeout=timeout,
        security_context=m.SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=m.Capabilities(drop=["ALL"]),
        ),
        **(_gpu(plan) if on_gpu else {"resources": Resources(cpu_request="500m", memory_request="1Gi")}),
    )


def _gpu(plan: Plan) -> dict[str, Any]:
    """Where a pod that computes may run: KAITO's node labels and taint, and Azure's spot taint."""
    selector = dict(plan.resource.labels)
    if plan.resource.instance_type:
        selector["node.kubernetes.io/instance-type"] = plan.resource.instance_type
    tolerate = m.Toleration
    return {
        "resources": Resources(cpu_request="2", memory_request="8Gi", gpus=plan.resource.gpus),
        "node_selector": selector,
        "tolerations": [
            tolerate(key="sku", operator="Equal", value="gpu", effect="NoSchedule"),
            tolerate(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule"),
            tolerate(key="kubernetes.azure.com/scalesetpriority", operator="Equal", value="spot", effect="NoSchedule"),
        ],
    }


def _access_token(plan: Plan) -> SecretEnv:
    return SecretEnv(name="HF_TOKEN", secret_name=plan.model.access_secret, secret_key="HF_TOKEN")


def _model(plan: Plan) -> dict[str, str]:
    return {"preset": plan.model.preset, "model": plan.model.repository, "revision": plan.model.revision}


def _mount(name: str, path: str, *, read_only: bool | None = None) -> m.VolumeMount:
    return m.VolumeMount(name=name, mount_path=path, read_only=read_only)


def _input(name: str) -> str:
    return f"{{{{inputs.parameters.{name}}}}}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _given(section: T | None) -> T:
    if section is None:
        raise ValueError("the plan has no such section")  # compile/dag.py asks only for what the plan has
    return section
