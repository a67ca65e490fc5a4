"""The Argo template of each step: image, settings, inputs and outputs, and what its pod needs.

What a user can change at submission is an input parameter; all other settings are arguments of the container.
"""

from __future__ import annotations

from hera.workflows import Parameter, Suspend

from steps.runtime.redaction import redact
from steps.serving.api_keys import FOLDER_VARIABLE
from steps.tune.node_job import FIRST, GROUP_LABEL
from workflows.compile import data_access, model_access, pod, settings, tracking
from workflows.compile.arguments import as_text
from workflows.compile.mount_paths import ADAPTER_SECRET, API_KEYS, AT_ROOT, PULL_SECRET, PUSH_SECRET, WORK, WorkPaths
from workflows.compile.parameters import (
    BUDGET,
    IMAGE,
    TUNING,
    budget_default,
    data_inputs,
    parameter_defaults,
    tuning_inputs,
)
from workflows.compile.retries import Retries
from workflows.compile.settings import required
from workflows.compile.step_template import StepTemplate
from workflows.compile.volumes import (
    MODELS_MOUNT,
    WORK_MOUNT,
    adapter_mounts,
    adapter_secret_mounts,
    api_key_mounts,
    data_mounts,
    output_mounts,
)
from workflows.plan.layers import as_dict
from workflows.plan.model import Plan
from workflows.plan.nodes import provisions_nodes
from workflows.spec.search import flag_names


def claims(plan: Plan) -> StepTemplate:
    """Check the volume claims of the next steps, without mounting one: a pod with a missing claim never starts."""
    return pod.step(plan, "claims", settings.claims(plan), retries=Retries(5), timeout="20m")


def preflight(plan: Plan) -> StepTemplate:
    """Check data, model, registry, secrets, storage and quota, without the work volume: nothing is created yet."""
    data = None if plan.schedule else plan.data
    return pod.step(
        plan,
        "preflight",
        settings.preflight(plan),
        # A custom workflow can be without some of these parameters.
        defaults={**parameter_defaults(plan), **budget_default(plan)},
        inputs=[
            *(data_inputs(data) if data else []),
            *((*tuning_inputs(plan), BUDGET) if plan.tuning else []),
            *(IMAGE if plan.output else []),
        ],
        mounts=[
            *(data_mounts(data) if data else []),
            *adapter_secret_mounts(plan),
            *api_key_mounts(plan),
            *output_mounts(plan),
            *model_access.mounts(plan),
        ],
        env=[
            *_hub_and_data(plan),
            *_push_config(plan),
            *_api_keys(plan),
            *tracking.environment(plan),
        ],
        retries=Retries(2),
        timeout="10m",
    )


def dryrun(plan: Plan) -> StepTemplate:
    """Let the libraries of tune check its settings, in its image but on a CPU node."""
    return pod.step(
        plan,
        "dryrun",
        settings.dryrun(plan),
        image=plan.images.tune,
        inputs=tuning_inputs(plan),
        env=[
            *([pod.access_token(plan, optional=True)] if plan.model.access_secret else []),
            *model_access.environment(plan, "dryrun"),
        ],
        mounts=model_access.mounts(plan),
        requests=pod.DATA,
        retries=Retries(2),
    )


def provision(plan: Plan) -> StepTemplate:
    """Create or check the nodes to compute on, without the work volume, so that it runs in parallel with download."""
    timeout = "1h" if provisions_nodes(plan) else "30m"
    return pod.step(plan, "provision", settings.provision(plan), retries=Retries(2), timeout=timeout)


def fetch(plan: Plan) -> StepTemplate:
    """Fetch the base model in the image of tune but on a CPU node, in parallel with provision and download."""
    return pod.step(
        plan,
        "fetch",
        settings.fetch(plan),
        image=plan.images.tune,
        mounts=[MODELS_MOUNT],
        requests=pod.DATA,
        retries=Retries(5),
        timeout="12h",
    )


def download(plan: Plan) -> StepTemplate:
    """Fetch, check and split the rows, on a CPU node."""
    data = required(plan.data)
    return pod.step(
        plan,
        "download",
        settings.download(plan),
        inputs=data_inputs(data),
        mounts=[WORK_MOUNT, *data_mounts(data)],
        env=[
            *data_access.environment(plan, "download"),
            *([pod.docker_config(PULL_SECRET)] if data.image_pull_secrets else []),
        ],
        requests=pod.DATA,
        retries=Retries(5),
        timeout="12h",
    )


def check(plan: Plan) -> StepTemplate:
    """Compare data and settings with those of the live adapter, on a CPU node."""
    return pod.step(
        plan,
        "check",
        settings.check(plan),
        inputs=[*tuning_inputs(plan), *IMAGE, "data-digest"],
        mounts=[WORK_MOUNT, *output_mounts(plan, read_only=True)],
        env=_push_config(plan),
        retries=Retries(5),
    )


def tune(plan: Plan, paths: WorkPaths = AT_ROOT) -> StepTemplate:
    """Train the adapter, on a GPU node if the plan requests one."""
    tuning = required(plan.tuning)
    return pod.step(
        plan,
        "tune",
        settings.tune(plan, paths),
        image=plan.images.tune,
        inputs=[*paths.inputs, *_tune_inputs(plan), "data-digest", BUDGET],
        defaults=budget_default(plan),
        mounts=[WORK_MOUNT, MODELS_MOUNT],
        env=tracking.environment(plan),
        requests=pod.COMPUTE,
        retries=Retries(tuning.retries, tuning.preemptions),
        timeout=tuning.timeout,
        on_gpu=True,
        keep_log=True,
        # Network policies find the nodes of a training by this label.
        labels={GROUP_LABEL: FIRST} if plan.resource.count > 1 else {},
        # Time to finish the current training step and write a checkpoint.
        grace_seconds=120,
    )


def evaluate(plan: Plan, paths: WorkPaths = AT_ROOT) -> StepTemplate:
    """Compare the adapter with its base model, and with the live adapter if there is a schedule."""
    inputs = ["adapter-digest", "data-digest", *(["previous"] if plan.schedule else [])]
    outputs = [name for name in pod.result_fields("evaluate") if plan.schedule or not name.startswith("previous")]
    return pod.step(
        plan,
        "evaluate",
        settings.evaluate(plan, paths),
        image=plan.images.tune,
        inputs=[*paths.inputs, *inputs, BUDGET],
        defaults=budget_default(plan),
        outputs=outputs,
        mounts=[WORK_MOUNT, MODELS_MOUNT, *(output_mounts(plan, read_only=True) if plan.schedule else [])],
        env=_push_config(plan) if plan.schedule else [],
        requests=pod.COMPUTE,
        retries=Retries(2, required(plan.tuning).preemptions),
        timeout="4h",
        on_gpu=True,
    )


def promote(plan: Plan) -> StepTemplate:
    """Make the candidate with the best evaluation the adapter of the later steps."""
    return pod.step(
        plan,
        "promote",
        settings.promote(plan),
        inputs=["candidates"],
        mounts=[WORK_MOUNT],
        requests=pod.DATA,
        retries=Retries(2),
    )


def prune(plan: Plan) -> StepTemplate:
    """Select the trials of a rung that are trained further."""
    return pod.step(
        plan,
        "prune",
        settings.prune(plan),
        inputs=["candidates", "trials", "keep"],
        mounts=[WORK_MOUNT],
        requests=pod.DATA,
        retries=Retries(2),
    )


def approval(plan: Plan) -> Suspend:
    """Wait for a user's YES, without a duration: Argo would approve when it ends."""
    question = f"Package and roll out the adapter of {plan.name}? The outputs of the evaluation have its metrics."
    approve = Parameter(name="approve", enum=["YES", "NO"], default="NO", description=question)
    return Suspend(name="approval", intermediate_parameters=[approve])


def package(plan: Plan) -> StepTemplate:
    """Build the image of the adapter and push it."""
    inputs = [*IMAGE, "adapter-digest", "data-digest"]
    return pod.step(
        plan,
        "package",
        settings.package(plan),
        inputs=[*inputs, "moving-image", "settings-digest"] if plan.schedule else inputs,
        mounts=[WORK_MOUNT, *output_mounts(plan)],
        env=_push_config(plan),
        requests=pod.DATA,
        retries=Retries(5),
        timeout="2h",
    )


def rollout(plan: Plan) -> StepTemplate:
    """Serve base model and adapters, and ask the question. On a cluster a Deployment serves, so it needs no GPU."""
    return pod.step(
        plan,
        "rollout",
        settings.rollout(plan),
        inputs=["image-digest", "image-reference"] if plan.tuning else [],
        mounts=[
            WORK_MOUNT,
            MODELS_MOUNT,
            *adapter_mounts(plan),
            *adapter_secret_mounts(plan),
            *api_key_mounts(plan),
        ],
        env=[
            *([pod.docker_config(ADAPTER_SECRET)] if required(plan.rollout).pull_secrets else []),
            *_api_keys(plan),
        ],
        requests=pod.DATA,
        retries=Retries(1),
        timeout="2h",
    )


def release(plan: Plan) -> StepTemplate:
    """Release the nodes of this run, however it ended."""
    return pod.step(plan, "release", settings.release(plan), retries=Retries(5))


def report(plan: Plan) -> StepTemplate:
    """Write the report of the run, however it ended."""
    return pod.step(
        plan,
        "report",
        settings.report(plan),
        inputs=[BUDGET] if plan.tuning else [],
        defaults=budget_default(plan),
        variables={"status": "{{workflow.status}}", "failures": "{{workflow.failures}}"},
        artifacts=_report_artifacts(plan),
        # A resumed run can change the budget, and nothing else of its Workflow.
        files={settings.PLAN_FILE: as_text(redact(as_dict(plan, without="budget")))},
        mounts=[WORK_MOUNT],
        retries=Retries(2),
    )


def _tune_inputs(plan: Plan) -> list[str]:
    """Return the settings that a run can change: the parameters, and those that a search sets."""
    names = [*TUNING, *(name for name in flag_names(plan.search) if name not in TUNING)]
    return [*names, "stop-after"] if plan.search and plan.search.method == "halving" else names


def _report_artifacts(plan: Plan) -> list[pod.Artifact]:
    """Return the report as an artifact; the step writes an optional one only where Argo has a repository."""
    archive = pod.NoneArchiveStrategy()
    match plan.artifacts.report:
        case None:
            return [pod.Artifact(name="report", path=settings.REPORT_ARTIFACT, archive=archive, optional=True)]
        case True:
            return [pod.Artifact(name="report", path=f"{WORK}/report/report.html", archive=archive)]
    return []


def _hub_and_data(plan: Plan) -> list[pod.Env | pod.SecretEnv]:
    """Return the environment of preflight, which reads the model, and the data unless a schedule does before."""
    of_data = [] if plan.schedule else data_access.environment(plan, "preflight")
    has_token = any(variable.name == "HF_TOKEN" for variable in of_data)
    token = [pod.access_token(plan, optional=True)] if plan.model.access_secret and not has_token else []
    return [*token, *of_data, *model_access.environment(plan, "preflight", [variable.name for variable in of_data])]


def _api_keys(plan: Plan) -> list[pod.Env]:
    """Return the environment of a step that reads the API keys of clients."""
    return [pod.Env(name=FOLDER_VARIABLE, value=API_KEYS)] if api_key_mounts(plan) else []


def _push_config(plan: Plan) -> list[pod.Env]:
    """Return the environment of a step that accesses the output's registry."""
    return [pod.docker_config(PUSH_SECRET)] if plan.output and plan.output.push_secret else []
