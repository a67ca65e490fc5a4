"""Settings of each step, from the plan.

A field that a section of the plan has under the same name is taken from there, so a new option is declared once, in
``steps/*/settings.py``. Only differences are written here. The settings are validated as in the step itself: what the
step would reject is not compiled. ``arguments.py`` turns them into flags.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import pydantic

from steps.check.settings import Settings as Check
from steps.claims.settings import Settings as Claims
from steps.download.settings import InputOptions
from steps.download.settings import Settings as Download
from steps.dryrun.settings import Settings as Dryrun
from steps.evaluate.settings import Settings as Evaluate
from steps.fetch.settings import Settings as Fetch
from steps.models import locations
from steps.package.settings import Settings as Package
from steps.preflight.settings import Settings as Preflight
from steps.preview.settings import Settings as Preview
from steps.promote.settings import Settings as Promote
from steps.provision.settings import ReleaseSettings as Release
from steps.provision.settings import Settings as Provision
from steps.prune.settings import Settings as Prune
from steps.report.settings import Settings as Report
from steps.rollout.settings import Settings as Rollout
from steps.runtime.options import Options
from steps.runtime.validation_messages import describe
from steps.tune.settings import Settings as Tune
from steps.tune_bench.settings import Settings as TuneBench
from workflows.compile.mount_paths import (
    ADAPTER_SECRET,
    AT_ROOT,
    DATA,
    OUTPUT,
    PULL_SECRET,
    SCRATCH,
    WORK,
    WorkPaths,
    adapter_path,
    input_path,
)
from workflows.errors import InvalidInput, Problem
from workflows.estimate.plan_estimate import context_length, processes
from workflows.plan.model import Data, Plan
from workflows.plan.nodes import gpu_nodes, provider, provisions_nodes
from workflows.plan.pods import SERVE, for_pod, fragments
from workflows.spec.field_types import whole_seconds
from workflows.spec.search import trials

S = TypeVar("S", bound=Options)
T = TypeVar("T")
UID = "{{workflow.uid}}"
PLAN_FILE = f"{SCRATCH}/plan.json"
"""File with the plan in the pod of report."""
REPORT_ARTIFACT = f"{SCRATCH}/artifacts/report.html"
"""Copy of the report that Argo uploads."""
PROVISION_SECONDS = 3300
"""Time to wait for nodes: less than the step's timeout, so that it can report why there are none."""


def claims(plan: Plan) -> Claims:
    """Return the settings of claims."""
    from workflows.compile import volumes

    return _build(Claims, work=SCRATCH, claims=volumes.early_claims(plan))


def preflight(plan: Plan) -> Preflight:
    """Return the settings of preflight. With a schedule it runs after download and check: data and tag are known."""
    from workflows.compile import volumes

    data = None if plan.schedule else plan.data
    values: dict[str, Any] = {}
    if data:
        source = _data_source(data)
        values |= {"data_image": source.pop("image", ""), **source, "allow_private_hosts": data.allow_private_hosts}
        values |= {"inputs": _inputs(data)} if data.inputs else {}
        values["pattern"] = data.pattern
        values |= {"pull_config": PULL_SECRET} if data.image_pull_secrets else {}
    if plan.rollout:
        values["adapter_images"] = [adapter.image for adapter in plan.rollout.adapters if adapter.image]
        values |= {"adapter_config": ADAPTER_SECRET} if plan.rollout.pull_secrets else {}
        values["api_keys_secret"] = plan.rollout.api_keys_secret
    if plan.output:
        values |= _output(plan) | {"immutable": plan.output.immutable and not plan.schedule}
    if is_tracked(plan) and plan.tracking:
        values |= {"tracking_uri": plan.tracking.uri, "tracking_secret": plan.tracking.secret}
    secrets = [
        data.image_pull_secrets if data else [],
        plan.rollout.pull_secrets if plan.rollout else [],
        [plan.model.image_pull_secret] if plan.model.image_pull_secret else [],
        [plan.output.push_secret] if plan.output and plan.output.push_secret else [],
    ]
    return _build(
        Preflight,
        plan.model,
        plan.storage,
        plan.tuning,
        plan.tracking if is_tracked(plan) else None,
        work=SCRATCH,
        model=plan.model.repository,
        claims=volumes.claims(plan),
        model_access=bool(plan.schedule) or _can_read_model(plan),
        registry_secrets=[names[0] if len(names) == 1 else names for names in secrets if names],
        **{"gpus": plan.resource.gpus, "gpu_resource": plan.resource.gpu_resource} | _nodes(plan),
        **values,
    )


def _can_read_model(plan: Plan) -> bool:
    """Return False if the pod of preflight has other credentials of stores, those of the data."""
    secret = plan.data.secret if plan.data else ""
    return not (locations.is_store(plan.model.repository) and secret and secret != plan.model.secret)


def dryrun(plan: Plan) -> Dryrun:
    """Return the settings of dryrun: those of tune that the libraries check."""
    return _build(
        Dryrun,
        plan.model,
        plan.tuning,
        work=SCRATCH,
        model=plan.model.repository,
        gpus=plan.resource.gpus,
    )


def needs_dryrun(plan: Plan) -> bool:
    """Return True if the user sets arguments of libraries; argotune's own settings are validated without them."""
    tuning = plan.tuning
    return bool(tuning and (tuning.training_arguments or tuning.lora_config or tuning.quantization_config))


def provision(plan: Plan) -> Provision:
    """Return the settings of provision."""
    return _build(Provision, work=SCRATCH, **_nodes(plan))


def fetch(plan: Plan) -> Fetch:
    """Return the settings of fetch."""
    return _build(Fetch, plan.model, work=SCRATCH, model=plan.model.repository)


def download(plan: Plan) -> Download:
    """Return the settings of download."""
    data, tuning = required(plan.data), required(plan.tuning)
    inputs = {"inputs": _inputs(data)}
    return _build(Download, data, work=WORK, objective=tuning.objective, **_data_source(data), **inputs)


def preview(plan: Plan, rows: int) -> Preview:
    """Return the settings of preview, which is no step of a run: how the model reads a row."""
    tuning = required(plan.tuning)
    return _build(
        Preview,
        plan.model,
        work=WORK,
        model=plan.model.repository,
        max_length=tuning.max_length,
        objective=tuning.objective,
        training_arguments=tuning.training_arguments,
        **{"model_config": tuning.model_config_},
        rows=rows,
    )


def tune_bench(plan: Plan) -> TuneBench:
    """Return the settings of tune_bench, which is no step of a run: those of tune that its speed depends on."""
    tuning = required(plan.tuning)
    return _build(TuneBench, plan.model, tuning, work=WORK, model=plan.model.repository, nodes=plan.resource.count)


def check(plan: Plan) -> Check:
    """Return the settings of check: those of tune that shape the adapter, and the image to compare with."""
    return _build(
        Check,
        plan.model,
        plan.tuning,
        work=WORK,
        model=plan.model.repository,
        search=search_items(plan),
        **_output(plan),
    )


def tune(plan: Plan, paths: WorkPaths = AT_ROOT) -> Tune:
    """Return the settings of tune."""
    tracking: dict[str, str] = {}
    if is_tracked(plan) and plan.tracking:
        run_name = f"{{{{workflow.name}}}}{'/{{inputs.parameters.candidate}}' if paths.candidates else ''}"
        tracking = {"report_to": plan.tracking.report_to, "run_name": run_name}
    return _build(
        Tune,
        plan.model,
        plan.tuning,
        model=plan.model.repository,
        tasks=plan.evaluation.tasks if plan.evaluation else [],
        nodes=plan.resource.count,
        **paths.settings,
        **processes(plan),
        **tracking,
    )


def evaluate(plan: Plan, paths: WorkPaths = AT_ROOT) -> Evaluate:
    """Return the settings of evaluate."""
    return _build(Evaluate, plan.model, plan.tuning, plan.evaluation, model=plan.model.repository, **paths.settings)


def promote(plan: Plan) -> Promote:
    """Return the settings of promote; the candidates are known in a run only."""
    return _build(Promote, work=WORK, candidates=[])


def prune(plan: Plan) -> Prune:
    """Return the settings of prune; all others are known in a run only."""
    return _build(Prune, work=WORK, candidates=[], trials=[], keep=1)


def package(plan: Plan) -> Package:
    """Return the settings of package."""
    return _build(Package, plan.model, plan.output, work=WORK, model=plan.model.repository, **_output(plan))


def rollout(plan: Plan) -> Rollout:
    """Return the settings of rollout. The servers outlive the run, so they never use nodes that it provisions."""
    section = required(plan.rollout)
    mounted = {adapter.name: adapter.volume for adapter in section.adapters if adapter.volume is not None}
    pulled = [{"name": adapter.name, "image": adapter.image} for adapter in section.adapters if adapter.volume is None]
    adapter_volumes = dict(mounted)
    if plan.output and plan.output.volume is not None:
        adapter_volumes[plan.name] = plan.output.volume  # where the adapter of this run is not pushed
    push_secret = plan.output.push_secret if plan.output else ""  # it can pull what this run pushed
    return _build(
        Rollout,
        plan.model,
        plan.resource,
        plan.storage,
        section,
        work=WORK,
        name=plan.name,
        model=plan.model.repository,
        adapters=[*([{"name": plan.name, "path": "adapter"}] if plan.tuning else []), *pulled],
        adapter_folders=[adapter_path(name) for name in mounted],
        adapter_volumes=adapter_volumes,
        deadline_seconds=whole_seconds(section.deadline),
        serve_image=plan.images.serve,
        queue=plan.queue,
        node_labels=plan.resource.labels,
        instance_types=instance_types(plan),
        context_length=context_length(plan),
        model_secret=plan.model.secret,
        model_pull_secret=plan.model.image_pull_secret,
        registry_secrets=list(dict.fromkeys([*section.pull_secrets, *([push_secret] if push_secret else [])])),
        service_account=plan.service_account if plan.azure_workload_identity else "",
        pod_options=fragments(for_pod(plan.pods, SERVE)),
    )


def release(plan: Plan) -> Release:
    """Return the settings of release."""
    if provider(plan) == "autoscaler":
        return _build(Release, work=SCRATCH)
    return _build(Release, plan.nodes, work=SCRATCH, provider=provider(plan), run=UID)


def report(plan: Plan) -> Report:
    """Return the settings of report, without those that Argo sets."""
    artifact = REPORT_ARTIFACT if plan.artifacts.report is None else None
    nodes = gpu_nodes(plan).as_values() if plan.tuning else {}
    return _build(Report, work=WORK, plan=PLAN_FILE, artifact=artifact, gpu_nodes=nodes, trials=search_items(plan))


def search_items(plan: Plan) -> list[dict[str, str]]:
    """Return the trials of a search as items of a fan-out; empty without a search."""
    return [trial.item for trial in trials(plan.search)] if plan.search else []


def instance_types(plan: Plan) -> list[str]:
    """Return the acceptable instance types, the preferred one first; empty: any."""
    first = plan.resource.instance_type
    return [first, *plan.nodes.fallback_instance_types] if first else []


def is_tracked(plan: Plan) -> bool:
    """Return True if a tracking tool gets the metrics of the training."""
    return plan.tracking is not None and plan.tracking.report_to != "none"


def required(section: T | None) -> T:
    """Return a section of the plan that the step cannot do without."""
    if section is None:
        raise ValueError("the plan has no such section")  # compile/dag.py compiles only the steps that the plan has
    return section


def _nodes(plan: Plan) -> dict[str, Any]:
    """Return the settings of provision: nodes to create for the run, or to look for."""
    if provider(plan) == "autoscaler":
        return {"instance_type": plan.resource.instance_type, "count": plan.resource.count}
    values = same_fields(Provision, plan.resource, plan.nodes) | {
        "provider": provider(plan),
        "run": UID,
        "workflow": "{{workflow.name}}",
        "namespace": "{{workflow.namespace}}",
        "workspace": plan.name,
    }
    if provisions_nodes(plan):
        values |= {"lease_seconds": whole_seconds(plan.nodes.lease), "deadline_seconds": PROVISION_SECONDS}
    return values


def _data_source(data: Data) -> dict[str, Any]:
    """Return the settings that say where the rows are; a volume takes precedence over an image, and both over URLs."""
    if data.volume is not None:
        return {"source": DATA, "urls": [], "image": ""}
    return {"image": data.image, "urls": []} if data.image else {"urls": data.urls}


def _inputs(data: Data) -> list[dict[str, Any]]:
    """Return the named inputs as the steps read them: volumes are mounted folders."""
    return [
        {
            **named.model_dump(include=set(InputOptions.model_fields), exclude_defaults=True),
            **({"source": input_path(named.name)} if named.volume_source is not None else {}),
        }
        for named in data.inputs
    ]


def _output(plan: Plan) -> dict[str, Any]:
    """Return the settings that say where the adapter goes."""
    output = required(plan.output)
    return {
        "image": output.image,
        "push": bool(output.image),
        "output": OUTPUT if output.volume is not None else None,
    }


def _build(settings_type: type[S], *sections: pydantic.BaseModel | None, **values: Any) -> S:
    """Return settings with the fields that sections have too (a later section wins), and ``values``.

    Raises:
        InvalidInput: with each value that the step would reject.
    """
    try:
        return settings_type(**same_fields(settings_type, *sections) | values)
    except pydantic.ValidationError as errors:
        step = settings_type.__module__.split(".")[1]
        raise InvalidInput(
            [Problem(describe(error), ".".join(map(str, (step, *error["loc"])))) for error in errors.errors()]
        ) from None


def same_fields(settings_type: type[Options], *sections: pydantic.BaseModel | None) -> dict[str, Any]:
    """Return the values of the fields that ``settings_type`` and the sections have in common."""
    values: dict[str, Any] = {}
    for section in filter(None, sections):
        names = _common_names(settings_type, type(section))
        values |= {alias: getattr(section, name) for alias, name in names.items()}
    return values


@cache
def _common_names(settings_type: type[Options], section_type: type[pydantic.BaseModel]) -> dict[str, str]:
    """Return the names of common fields, as settings are created with, and as attributes of the section."""
    fields = settings_type.model_fields
    return {fields[name].alias or name: name for name in section_type.model_fields if name in fields}
