"""The DAG: which steps a plan needs, what they hand to each other, and what surrounds them.

provision --.
            +--> tune --> evaluate --(verdict == pass)--> package --> rollout        onExit: release, report
download  --'
"""

from __future__ import annotations

import json
from typing import Any

from hera.workflows import DAG, Container, Parameter, Task, Workflow
from hera.workflows import models as m

from workflows.compile import templates
from workflows.plan import Plan

PASSED = "{{tasks.evaluate.outputs.parameters.verdict}} == pass"


def compile_workflow(plan: Plan) -> dict[str, Any]:
    """Compile a plan to an Argo Workflow, as a plain dict (never by Hera's ``to_yaml``, see ``emit.py``)."""
    with Workflow(
        generate_name=f"{plan.name}-",
        namespace=plan.namespace or None,
        entrypoint="main",
        on_exit="exit",
        service_account_name=plan.service_account,
        arguments=_parameters(plan),
        labels={"app.kubernetes.io/managed-by": "argotune", "argotune.dev/workspace": plan.name},
        annotations=_annotations(plan),
        volume_claim_templates=[_work_claim(plan)],
        volumes=_volumes(plan),
        volume_claim_gc=m.VolumeClaimGC(strategy="OnWorkflowSuccess"),
        pod_gc=m.PodGC(strategy="OnPodSuccess", delete_delay_duration="600s"),
        ttl_strategy=m.TTLStrategy(seconds_after_success=7 * 86400, seconds_after_failure=30 * 86400),
        security_context=m.PodSecurityContext(
            run_as_non_root=True,
            run_as_user=1000,
            fs_group=1000,
            seccomp_profile=m.SeccompProfile(type="RuntimeDefault"),
        ),
        archive_logs=None,
    ) as workflow:
        steps = {make.__name__: make(plan) for make in _steps(plan)}
        with DAG(name="main"):
            _main_tasks(plan, steps)
        with DAG(name="exit"):
            Task(name="release", template=steps["release"].name)
            Task(name="report", template=steps["report"].name)
    document: dict[str, Any] = workflow.to_dict()
    return document


def _steps(plan: Plan) -> list[Any]:
    return [
        templates.provision,
        *([templates.download, templates.tune] if plan.tuning else []),
        *([templates.evaluate] if plan.evaluation else []),
        *([templates.package] if plan.tuning else []),
        *([templates.rollout] if plan.rollout else []),
        templates.release,
        templates.report,
    ]


def _main_tasks(plan: Plan, steps: dict[str, Container]) -> None:
    previous = "provision"
    _task(steps, "provision")
    if plan.tuning:
        data_digest = {"data-digest": _output("download", "data-digest")}
        adapter_digest = {"adapter-digest": _output("tune", "adapter-digest")}
        urls = {"data-urls": _parameter("data-urls")} if steps["download"].inputs else {}
        _task(steps, "download", urls)
        knobs = {name: _parameter(name) for name in templates.TUNING_INPUTS}
        _task(steps, "tune", knobs | data_digest, depends="provision && download")
        previous = "tune"
        if plan.evaluation:
            _task(steps, "evaluate", adapter_digest | data_digest, depends="tune")
            previous = "evaluate"
        target = {"image": _parameter("image"), "push": _parameter("push")}
        when = PASSED if plan.evaluation else None
        _task(steps, "package", target | adapter_digest | data_digest, depends=previous, when=when)
        previous = "package"
    if plan.rollout:
        image = {"image-digest": _output("package", "image-digest")} if plan.tuning else {}
        # Not the bare name: that would also let a skipped package (gate said no) through.
        _task(steps, "rollout", image, depends=f"{previous}.Succeeded")


def _task(
    steps: dict[str, Container],
    name: str,
    arguments: dict[str, str] | None = None,
    *,
    depends: str | None = None,
    when: str | None = None,
) -> None:
    Task(name=name, template=steps[name].name, arguments=arguments or None, depends=depends, when=when)


def _parameters(plan: Plan) -> list[Parameter]:
    """What may be changed at submit time (``argo submit -p``, the form of the Argo UI, ``argotune run -p``)."""
    if plan.tuning is None or plan.data is None or plan.output is None:
        return []
    tuning = plan.tuning
    data_urls = Parameter(name="data-urls", value=json.dumps(plan.data.urls), description="parquet files, a JSON list")
    return [
        *([data_urls] if plan.data.urls else []),
        _number("epochs", tuning.epochs, "passes over the data"),
        _number("max-steps", tuning.max_steps, "stop after so many optimizer steps; -1: as many as the epochs need"),
        _number("learning-rate", tuning.learning_rate, "peak learning rate"),
        _number("batch-size", tuning.batch_size, "rows of one step on each device"),
        _number("rank", tuning.rank, "LoRA rank r"),
        _number("alpha", tuning.alpha, "LoRA alpha"),
        Parameter(name="image", value=plan.output.image, description="reference the adapter image is pushed to"),
        Parameter(
            name="push",
            value="true" if plan.output.image else "false",
            enum=["true", "false"],
            description="push the image to its registry",
        ),
    ]


def _number(name: str, value: float, description: str) -> Parameter:
    return Parameter(name=name, value=f"{value:g}", description=description)


def _annotations(plan: Plan) -> dict[str, str]:
    title = f"Tune {plan.model.preset} ({plan.tuning.method})" if plan.tuning else f"Serve {plan.model.preset}"
    return {
        "workflows.argoproj.io/title": f"{title} for {plan.name}",
        "workflows.argoproj.io/description": f"Compiled by argotune from Workspace {plan.name}; base model "
        f"{plan.model.repository} at {plan.model.revision}",
    }


def _work_claim(plan: Plan) -> m.PersistentVolumeClaim:
    return m.PersistentVolumeClaim(
        metadata=m.ObjectMeta(name="work"),
        spec=m.PersistentVolumeClaimSpec(
            access_modes=["ReadWriteOnce"],
            storage_class_name=plan.storage.storage_class or None,
            resources=m.VolumeResourceRequirements(requests={"storage": m.Quantity(root=plan.storage.size)}),
        ),
    )


def _volumes(plan: Plan) -> list[m.Volume]:
    models = m.PersistentVolumeClaimVolumeSource(claim_name=plan.storage.models_claim)
    volumes = [
        m.Volume(name="models", persistent_volume_claim=models),
        m.Volume(name="scratch", empty_dir=m.EmptyDirVolumeSource()),
        m.Volume(name="tmp", empty_dir=m.EmptyDirVolumeSource()),
    ]
    if plan.data and plan.data.volume is not None:
        volumes.append(_user_volume("data", plan.data.volume))
    if plan.output and plan.output.volume is not None:
        volumes.append(_user_volume("output", plan.output.volume))
    if plan.data and plan.data.image_pull_secrets:
        volumes.append(_registry_secret("pull-secret", plan.data.image_pull_secrets[0]))
    if plan.output and plan.output.push_secret:
        volumes.append(_registry_secret("push-secret", plan.output.push_secret))
    for adapter in plan.rollout.adapters if plan.rollout else []:
        if adapter.volume is not None:
            volumes.append(_user_volume(templates.adapter_volume(adapter.name), adapter.volume))
    return volumes


def _registry_secret(volume: str, secret: str) -> m.Volume:
    """A dockerconfigjson Secret as docker's configuration folder.

    Optional: without it the step says which credentials it lacks, where a pod would hang unexplained.
    """
    items = [m.KeyToPath(key=".dockerconfigjson", path="config.json")]
    return m.Volume(name=volume, secret=m.SecretVolumeSource(secret_name=secret, items=items, optional=True))


def _user_volume(name: str, source: dict[str, Any]) -> m.Volume:
    return m.Volume.model_validate({"name": name, **source})


def _parameter(name: str) -> str:
    return f"{{{{workflow.parameters.{name}}}}}"


def _output(task: str, name: str) -> str:
    return f"{{{{tasks.{task}.outputs.parameters.{name}}}}}"
