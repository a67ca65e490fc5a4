"""The DAG: which steps a plan needs, what they hand to each other, and what surrounds them.

provision --.
            +--> tune --> evaluate --(verdict == pass)--> [approval --(YES)-->] package --> rollout
download  --'                                                         onExit: release, report

With a schedule, nothing is taken that costs before it is known that there is something to tune:

download --> check --(changed)--> provision --> tune --> ...
"""

from __future__ import annotations

import json
from typing import Any

from hera.workflows import DAG, Container, Parameter, Suspend, Task, Workflow
from hera.workflows import models as m

from workflows.compile import templates, volumes
from workflows.plan import Plan
from workflows.spec.pipeline import seconds

Steps = dict[str, Container | Suspend]


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
        pod_metadata=_pod_metadata(plan),
        volume_claim_templates=[volumes.work_claim(plan)],
        volumes=volumes.volumes(plan),
        volume_claim_gc=m.VolumeClaimGC(strategy="OnWorkflowSuccess"),
        pod_gc=m.PodGC(strategy="OnPodSuccess", delete_delay_duration="600s"),
        ttl_strategy=m.TTLStrategy(seconds_after_success=7 * 86400, seconds_after_failure=30 * 86400),
        active_deadline_seconds=seconds(plan.time_limit) if plan.time_limit else None,
        # Two runs of one Workspace would move its tag, its volume and its service by turns.
        synchronization=m.Synchronization(mutexes=[m.Mutex(name=f"argotune-{plan.name}")]),
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
        *([templates.download] if plan.tuning else []),
        *([templates.check] if plan.schedule else []),
        *([templates.tune] if plan.tuning else []),
        *([templates.evaluate] if plan.evaluation else []),
        *([templates.approval] if plan.approval else []),
        *([templates.package] if plan.tuning else []),
        *([templates.rollout] if plan.rollout else []),
        templates.release,
        templates.report,
    ]


def _main_tasks(plan: Plan, steps: Steps) -> None:
    if not plan.tuning:
        _task(steps, "provision")
        previous = "provision"
    else:
        ready = _check_tasks(plan, steps) if plan.schedule else _gather_tasks(steps)
        _tuning_tasks(plan, steps, ready)
        previous = "package"
    if plan.rollout:
        image = {"image-digest": _output("package", "image-digest")} if plan.tuning else {}
        # Not the bare name: that would also let a skipped package (gate said no) through.
        _task(steps, "rollout", image, depends=f"{previous}.Succeeded")


def _gather_tasks(steps: Steps) -> str:
    """Nodes and data at the same time; gives what tune waits for."""
    _task(steps, "provision")
    _task(steps, "download", _urls(steps))
    return "provision && download"


def _check_tasks(plan: Plan, steps: Steps) -> str:
    """Data first, and nodes only for something to tune; gives what tune waits for."""
    _task(steps, "download", _urls(steps))
    _task(steps, "check", _knobs() | _target() | _data_digest(), depends="download")
    _task(steps, "provision", depends="check", when=f"{_output('check', 'changed')} == true")
    # Not the bare name: a skipped provision says that there is nothing to tune.
    return "provision.Succeeded"


def _tuning_tasks(plan: Plan, steps: Steps, ready: str) -> None:
    adapter_digest = {"adapter-digest": _output("tune", "adapter-digest")}
    digests = adapter_digest | _data_digest()
    _task(steps, "tune", _knobs() | _data_digest(), depends=ready)
    depends, when = "tune", None
    if plan.evaluation:
        previous = {"previous": _output("check", "previous")} if plan.schedule else {}
        _task(steps, "evaluate", digests | previous, depends=depends)
        depends, when = "evaluate", f"{_output('evaluate', 'verdict')} == pass"
    if plan.approval:
        _task(steps, "approval", depends=depends, when=when)
        # Not the bare name: an approval that was skipped, as the gate said no, was not given.
        depends, when = "approval.Succeeded", f"{_output('approval', 'approve')} == YES"
    arguments = _target() | digests
    if plan.schedule:
        arguments |= {
            "image": _output("check", "image"),
            "moving-image": _parameter("image"),
            "settings-digest": _output("check", "settings-digest"),
        }
    _task(steps, "package", arguments, depends=depends, when=when)


def _urls(steps: Steps) -> dict[str, str]:
    return {"data-urls": _parameter("data-urls")} if steps["download"].inputs else {}


def _knobs() -> dict[str, str]:
    return {name: _parameter(name) for name in templates.TUNING_INPUTS}


def _target() -> dict[str, str]:
    return {"image": _parameter("image"), "push": _parameter("push")}


def _data_digest() -> dict[str, str]:
    return {"data-digest": _output("download", "data-digest")}


def _task(
    steps: Steps,
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


def _pod_metadata(plan: Plan) -> m.Metadata | None:
    # The webhook of Azure's workload identity looks at pods with this label alone.
    return m.Metadata(labels={"azure.workload.identity/use": "true"}) if plan.azure_workload_identity else None


def _parameter(name: str) -> str:
    return f"{{{{workflow.parameters.{name}}}}}"


def _output(task: str, name: str) -> str:
    return f"{{{{tasks.{task}.outputs.parameters.{name}}}}}"
