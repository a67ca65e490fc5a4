"""One Argo template a step: the image it runs in, its flags, its output parameters, and what its pod needs.

Each function makes the template of the step of its name. What a user may want to change at submit time comes in as an
input parameter; the rest of the plan stands in the arguments, so that the Argo UI shows what will run.
"""

from __future__ import annotations

from typing import Any, TypeVar

from hera.workflows import Env, Parameter, Suspend
from hera.workflows import models as m

from workflows.compile import placement, pod, service, tracking
from workflows.compile.pod import MODELS, SCRATCH, Retries, mount
from workflows.compile.step_template import TUNING_INPUTS, StepTemplate
from workflows.compile.volumes import (
    ADAPTER_SECRET,
    DATA,
    OUTPUT,
    PULL_SECRET,
    PUSH_SECRET,
    WORK,
    WorkPaths,
    adapter_volume,
)
from workflows.estimate.plan_estimate import processes
from workflows.plan.layers import as_dict
from workflows.plan.model import Evaluation, Plan
from workflows.spec.pipeline import whole_seconds

T = TypeVar("T")
AT_ROOT = WorkPaths()


def provision(plan: Plan) -> StepTemplate:
    """Makes sure that there is something to compute on. Without the work volume, so that it runs beside download."""
    return pod.step(
        plan,
        "provision",
        plan.images.control,
        flags={
            "work": SCRATCH,
            "instance-type": plan.resource.instance_type,
            "count": plan.resource.count,
            **placement.provision_flags(plan),
        },
        outputs=["device", "nodes", "summary"],
        mounts=[],
        retries=Retries(2),
        timeout="1h" if placement.provisions_nodes(plan) else "30m",
    )


def download(plan: Plan) -> StepTemplate:
    """Fetches, checks and splits the rows, on a CPU node."""
    data = _given(plan.data)
    flags: dict[str, Any] = {
        "work": WORK,
        "eval-split": data.eval_split,
        **({"columns": data.columns} if data.columns else {}),
        **({"weights": data.weights} if data.weights else {}),
        **({"objective": "dpo"} if _given(plan.tuning).objective == "dpo" else {}),
        "shuffle": data.shuffle,
        "seed": data.seed,
        "allow-private-hosts": data.allow_private_hosts,
    }
    mounts = [mount("work", WORK)]
    inputs = []
    if data.volume is not None:
        flags["source"] = DATA
        mounts.append(mount("data", DATA, read_only=True))
    elif data.image:
        flags["image"] = data.image
    else:
        inputs = ["data-urls"]
        flags["urls"] = _input("data-urls")
    env: list[Any] = []
    if data.image_pull_secrets:
        mounts.append(mount("pull-secret", PULL_SECRET, read_only=True))
        env.append(Env(name="DOCKER_CONFIG", value=PULL_SECRET))
    return pod.step(
        plan,
        "download",
        plan.images.control,
        flags=flags,
        inputs=inputs,
        outputs=["rows", "eval-rows", "data-digest", "data-format"],
        mounts=mounts,
        env=env,
        requests=pod.DATA,
        retries=Retries(5),
        timeout="12h",
    )


def check(plan: Plan) -> StepTemplate:
    """Compares data and settings with those of the adapter in service, on a CPU node."""
    mounts, env = [mount("work", WORK)], _pushing(plan)
    if _given(plan.output).volume is not None:
        mounts.append(mount("output", OUTPUT, read_only=True))
    return pod.step(
        plan,
        "check",
        plan.images.control,
        flags={
            "work": WORK,
            **_adapter_flags(plan),
            "image": _input("image"),
            "push": _input("push"),
            **_output_folder(plan),
        },
        inputs=[*TUNING_INPUTS, "image", "push", "data-digest"],
        outputs=["changed", "image", "previous", "settings-digest", "difference"],
        mounts=[*mounts, *_push_secret(plan)],
        env=env,
        retries=Retries(5),
    )


def tune(plan: Plan, place: WorkPaths = AT_ROOT) -> StepTemplate:
    """Trains the adapter, on a GPU node where the plan asks for one."""
    tuning = _given(plan.tuning)
    return pod.step(
        plan,
        "tune",
        plan.images.tune,
        flags={
            **place.flags,
            **_adapter_flags(plan),
            **processes(plan),
            **tracking.flags(plan, place),
            **({"tasks": plan.evaluation.tasks} if plan.evaluation and plan.evaluation.tasks else {}),
        },
        inputs=[*place.inputs, *TUNING_INPUTS, "data-digest"],
        outputs=["adapter-digest", "train-loss", "steps", "device", "tokens-per-second"],
        mounts=[mount("work", WORK), mount("models", MODELS)],
        env=tracking.environment(plan),
        requests=pod.COMPUTE,
        retries=Retries(tuning.retries, tuning.preemptions),
        timeout=tuning.timeout,
        on_gpu=True,
        progress="0/100",
        # A step of training ends first, then its checkpoint is written.
        grace_seconds=120,
    )


def evaluate(plan: Plan, place: WorkPaths = AT_ROOT) -> StepTemplate:
    """Compares the adapter with its base, and with the adapter in service, and gives the verdict."""
    tuning, evaluation = _given(plan.tuning), _given(plan.evaluation)
    inputs, outputs = ["adapter-digest", "data-digest"], ["base-loss", "adapter-loss"]
    outputs += ["base-perplexity", "adapter-perplexity", "verdict", "reason"]
    outputs += ["base-exact-match", "adapter-exact-match", "base-rouge-l", "adapter-rouge-l"]
    mounts, env = [mount("work", WORK), mount("models", MODELS)], []
    if plan.schedule:
        inputs = [*inputs, "previous"]
        outputs = [*outputs, "previous-loss", "previous-exact-match", "previous-rouge-l"]
        mounts, env = [*mounts, *_push_secret(plan)], _pushing(plan)
        if _given(plan.output).volume is not None:
            mounts.append(mount("output", OUTPUT, read_only=True))
    return pod.step(
        plan,
        "evaluate",
        plan.images.tune,
        flags={
            **place.flags,
            **_model(plan),
            "method": tuning.method,
            "quantization-config": tuning.quantization_config,
            "max-length": tuning.max_length,
            "samples": evaluation.samples,
            "max-new-tokens": evaluation.max_new_tokens,
            "max-loss-ratio": evaluation.max_loss_ratio,
            **({"tasks": evaluation.tasks, "task-limit": evaluation.task_limit} if evaluation.tasks else {}),
            **_gate_rules(evaluation),
            "seed": tuning.seed,
            **{name: _input(name) for name in inputs},
        },
        inputs=[*place.inputs, *inputs],
        outputs=outputs,
        mounts=mounts,
        env=env,
        requests=pod.COMPUTE,
        retries=Retries(2, tuning.preemptions),
        timeout="4h",
        on_gpu=True,
    )


def promote(plan: Plan) -> StepTemplate:
    """Makes the candidate with the best evaluation the adapter that the later steps take."""
    return pod.step(
        plan,
        "promote",
        plan.images.control,
        flags={"work": WORK, "candidates": _input("candidates")},
        inputs=["candidates"],
        outputs=["candidate", "adapter-digest", "base-loss", "adapter-loss", "compared"],
        mounts=[mount("work", WORK)],
        requests=pod.DATA,
        retries=Retries(2),
    )


def approval(plan: Plan) -> Suspend:
    """Waits for somebody's YES. Without a duration: when that is over, Argo takes it for approved."""
    question = (
        f"Package the adapter of {plan.name} and put it in service? The evaluation's outputs say how good it is."
    )
    asked = Parameter(name="approve", enum=["YES", "NO"], default="NO", description=question)
    return Suspend(name="approval", intermediate_parameters=[asked])


def package(plan: Plan) -> StepTemplate:
    """Builds the image of the adapter and pushes it."""
    inputs = ["image", "push", "adapter-digest", "data-digest"]
    if plan.schedule:
        inputs += ["moving-image", "settings-digest"]
    mounts = [mount("work", WORK)]
    if _given(plan.output).volume is not None:
        mounts.append(mount("output", OUTPUT))
    return pod.step(
        plan,
        "package",
        plan.images.control,
        flags={
            "work": WORK,
            **_model(plan),
            **{name: _input(name) for name in inputs},
            **_output_folder(plan),
            **({"immutable": True} if _given(plan.output).immutable else {}),
        },
        inputs=inputs,
        outputs=["image-digest", "image-reference", "size-bytes", "pushed", "provenance-digest"],
        mounts=[*mounts, *_push_secret(plan)],
        env=_pushing(plan),
        requests=pod.DATA,
        retries=Retries(5),
        timeout="2h",
    )


def rollout(plan: Plan) -> StepTemplate:
    """Puts base and adapters in service and asks the question: on a cluster by a Deployment, so without a GPU."""
    chosen = _given(plan.rollout)
    inputs = ["image-digest", "image-reference"] if plan.tuning else []
    mounts = [mount("work", WORK), mount("models", MODELS)]
    adapters: list[dict[str, str]] = [{"name": plan.name, "path": "adapter"}] if plan.tuning else []
    volumes: dict[str, Any] = {}
    for adapter in chosen.adapters:
        if adapter.volume is None:
            adapters.append({"name": adapter.name, "image": adapter.image})
        else:
            volumes[adapter.name] = adapter.volume
            mounts.append(mount(adapter_volume(adapter.name), f"/mnt/adapter/{adapter.name}", read_only=True))
    env: list[Any] = []
    if chosen.pull_secret:
        mounts.append(mount("adapter-secret", ADAPTER_SECRET, read_only=True))
        env.append(Env(name="DOCKER_CONFIG", value=ADAPTER_SECRET))
    return pod.step(
        plan,
        "rollout",
        plan.images.control,
        flags={
            "work": WORK,
            "name": plan.name,
            **_model(plan),
            "adapters": adapters,
            **({"adapter-folders": [f"/mnt/adapter/{name}" for name in volumes]} if volumes else {}),
            "question": chosen.question,
            "server-arguments": chosen.server_arguments,
            "port": chosen.port,
            "deadline-seconds": whole_seconds(chosen.deadline),
            **service.flags(plan),
            **{name: _input(name) for name in inputs},
        },
        inputs=inputs,
        outputs=["endpoint", "answer", "base-answer", "server", "agreement"],
        mounts=mounts,
        env=env,
        requests=pod.DATA,
        retries=Retries(1),
        timeout="2h",
    )


def release(plan: Plan) -> StepTemplate:
    """Gives back the nodes of this run, however it ended."""
    return pod.step(
        plan,
        "release",
        plan.images.control,
        flags={"work": SCRATCH, **placement.release_flags(plan)},
        outputs=["summary"],
        mounts=[],
        retries=Retries(5),
    )


def report(plan: Plan) -> StepTemplate:
    """Writes the report of the run, however it ended."""
    return pod.step(
        plan,
        "report",
        plan.images.control,
        flags={
            "work": WORK,
            "plan": as_dict(plan),
            "status": "{{workflow.status}}",
            "failures": "{{workflow.failures}}",
        },
        outputs=["report-path"],
        artifacts={"report": f"{WORK}/report/report.html"} if plan.artifacts.report else {},
        mounts=[mount("work", WORK)],
        retries=Retries(2),
    )


def _adapter_flags(plan: Plan) -> dict[str, Any]:
    """All that shapes the adapter: of tune, and of check, which asks whether it is another now."""
    tuning = _given(plan.tuning)
    return {
        **_model(plan),
        "method": tuning.method,
        **({"objective": tuning.objective, "beta": tuning.beta} if tuning.objective != "sft" else {}),
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
    }


def _gate_rules(evaluation: Evaluation) -> dict[str, Any]:
    """What the gate asks besides the loss."""
    asked = {
        "min-exact-match": evaluation.min_exact_match,
        "min-rouge-l": evaluation.min_rouge_l,
        "max-regressions": evaluation.max_regressions,
    }
    return {
        **({"confident": True} if evaluation.confident else {}),
        **({"min-task-scores": evaluation.min_task_scores} if evaluation.min_task_scores else {}),
        **{name: rule for name, rule in asked.items() if rule is not None},
        **({} if evaluation.better_than_previous else {"better-than-previous": False}),
    }


def _output_folder(plan: Plan) -> dict[str, str]:
    return {"output": OUTPUT} if _given(plan.output).volume is not None else {}


def _push_secret(plan: Plan) -> list[m.VolumeMount]:
    return [mount("push-secret", PUSH_SECRET, read_only=True)] if _given(plan.output).push_secret else []


def _pushing(plan: Plan) -> list[Any]:
    """Environment of a step that speaks with the registry of the output."""
    return [Env(name="DOCKER_CONFIG", value=PUSH_SECRET)] if _given(plan.output).push_secret else []


def _model(plan: Plan) -> dict[str, str]:
    return {"preset": plan.model.preset, "model": plan.model.repository, "revision": plan.model.revision}


def _input(name: str) -> str:
    return f"{{{{inputs.parameters.{name}}}}}"


def _given(section: T | None) -> T:
    if section is None:
        raise ValueError("the plan has no such section")  # compile/dag.py asks only for what the plan has
    return section
