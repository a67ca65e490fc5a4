"""The plan: every value a run needs, explicit and frozen, each with its origin.

A plan is merged from layers, the later winning: built-in, preset, site profile, ConfigMap, Workspace, environment
(``ARGOTUNE_TUNING__EPOCHS=1``), flag (``--set tuning.epochs=1``). Field names are those of the Workspace where KAITO
has the field, else those of the library that reads the value. A section inherits the block of ``pipeline:`` and the
options of the step that it configures; only fields that neither has are declared here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel

from steps.download.settings import DatasetOptions
from steps.provision.settings import NodePoolOptions
from steps.runtime.gpu_time import MAX_HOURS
from steps.runtime.options import Pattern
from steps.tune.settings import TrainingOptions
from workflows.plan.pods import PodOptions
from workflows.spec.field_types import Label, Labels, ObjectName, Word
from workflows.spec.pipeline import (
    PipelineBudget,
    PipelineData,
    PipelineEvaluation,
    PipelineModel,
    PipelineNodes,
    PipelineRollout,
    PipelineStorage,
    PipelineTracking,
    PipelineTune,
    RunOptions,
)
from workflows.spec.schedule import PipelineSchedule, PipelineStopStrategy
from workflows.spec.search import PipelineSearch
from workflows.version import VERSION

Step = Literal[
    "claims", "preflight", "dryrun", "provision", "fetch", "download", "check", "tune", "evaluate", "prune",
    "promote", "package", "rollout", "release", "report",
]  # fmt: skip
PodName = Literal[Step, "all", "serve"]
"""A step, ``all`` pods, or the servers of a rollout."""
GpuResource = Annotated[str, Pattern(r"[A-Za-z0-9.-]+/[A-Za-z0-9._-]+", "a resource such as nvidia.com/gpu")]
Image = Annotated[str, Pattern(r"\S+", "an image reference")]
SemaphoreKey = Annotated[str, Pattern(r"[-._a-zA-Z0-9]*", "a key of a ConfigMap")]


class Section(BaseModel):
    """A part of a plan. Not strict: values of flags and environment variables are text."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=False,
        allow_inf_nan=False,
        alias_generator=lambda name: to_camel(name.rstrip("_")),
        populate_by_name=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class Resource(Section):
    """The requested nodes."""

    instance_type: Word = ""
    """Instance type (KAITO ``resource.instanceType``); empty: existing nodes that match ``labels``."""
    count: int = Field(1, ge=1, le=1000)
    gpus: int = Field(1, ge=0, le=64)
    """GPUs of one node, requested by the pods that compute."""
    usd_per_hour: float = Field(0, ge=0, le=100_000)
    """Price of one node; 0: unknown. Default: the on-demand price of the instance type, or of a dearer fallback."""
    gpu_resource: GpuResource = "nvidia.com/gpu"
    """Kubernetes resource name of the GPUs; ``nvidia.com/mig-PROFILE`` for a slice (KAITO ``resource.partition``)."""
    labels: Labels = {}
    """Node labels that must match (KAITO ``resource.labelSelector``)."""
    preferred_nodes: list[ObjectName] = []
    """Names of nodes to prefer (KAITO ``resource.preferredNodes``)."""


class Nodes(PipelineNodes, NodePoolOptions, Section):
    """Provider and options of the GPU nodes (``steps/provision/step.py``)."""


class Model(PipelineModel, Section):
    """The base model; without a preset it is defined by the pod in ``rollout.template``."""

    preset: Word = ""
    revision: Word = "main"
    """Commit, branch or tag; digest of an image or of the objects of a store, empty for the present one."""
    image_pull_secret: ObjectName = ""
    """Secret of the registry of an image (KAITO ``presetOptions.imagePullSecrets``)."""
    access_secret: ObjectName = ""
    """Name of the Kubernetes Secret with key ``HF_TOKEN`` (KAITO ``modelAccessSecret``)."""


class Data(PipelineData, DatasetOptions, Section):
    """Source of the rows, and their split."""

    volume: dict[str, Any] | None = None
    """Kubernetes VolumeSource with data files (KAITO ``tuning.input.volumeSource``)."""
    image_pull_secrets: list[ObjectName] = []


class Tuning(PipelineTune, TrainingOptions, Section):
    """Training of the adapter."""


class Tracking(PipelineTracking, Section):
    """Destination of the metrics, in addition to the run's report."""


class Evaluation(PipelineEvaluation, Section):
    """Comparison of the adapter with its base model, and the rules of the gate (``steps/evaluate/gate.py``)."""


class Output(Section):
    """Destination of the adapter."""

    image: str = ""
    push_secret: ObjectName = ""
    immutable: bool = False
    """Reject a tag that already names another image."""
    volume: dict[str, Any] | None = None


class Adapter(Section):
    """One more adapter to serve (KAITO ``inference.adapters``)."""

    name: ObjectName
    image: str = ""
    volume: dict[str, Any] | None = None


class Rollout(PipelineRollout, Section):
    """Served adapters, and the question that tests them."""

    adapters: list[Adapter] = []
    pull_secrets: list[ObjectName] = []
    """Secrets of the registries that adapters come from (KAITO ``inference.adapters[].source.imagePullSecrets``)."""
    template: dict[str, Any] | None = None
    """The user's own pod (KAITO ``inference.template``); a cluster serves it on the nodes of ``resource``."""
    server_arguments: dict[str, Any] = {}
    """vLLM flags (KAITO ``inference_config.yaml``, section ``vllm``)."""


class Images(Section):
    """Images that the steps run in (``containers/``)."""

    control: Image = f"ghcr.io/argotune/control:{VERSION}"
    """Image of the steps without a model."""
    tune: Image = f"ghcr.io/argotune/tune:{VERSION}"
    """Image of tune and evaluate."""
    serve: Image = f"ghcr.io/argotune/serve:{VERSION}"
    """Image of the servers of a rollout."""


class Budget(PipelineBudget, Section):
    """Limit of what a run can spend on GPUs."""

    def limit_hours(self, usd_per_hour: float) -> float:
        """Return the hours after which a run has used its budget; 0: never.

        Args:
            usd_per_hour: price of all nodes; 0: unknown, so that ``usd`` is no limit.
        """
        limits = [self.hours, self.usd / usd_per_hour if usd_per_hour else 0]
        return min((limit for limit in limits if limit), default=0)


MODELS = "/mnt/models"
"""Mount path of the volume of base models in pods."""


class Storage(PipelineStorage, Section):
    """Volumes of a run."""

    models_claim: ObjectName = "argotune-models"
    """PersistentVolumeClaim that caches base models between runs."""


class Artifacts(Section):
    """Uploads to the site's artifact repository (Argo's default one), if it has one."""

    report: bool | None = None
    """Upload the report of each run, which the Argo UI then shows. Default: if Argo has an artifact repository."""


class Semaphore(Section):
    """The key of a ConfigMap (``argo/install``) that limits how many GPU pods of all runs are active."""

    config_map: ObjectName = "argotune-semaphores"
    """Name of the ConfigMap."""
    key: SemaphoreKey = "gpu"
    """Key for the pool of GPUs; empty: no limit."""


class StopStrategy(PipelineStopStrategy, Section):
    """Condition that stops the schedule."""


class Schedule(PipelineSchedule, Section):
    """Schedule of the runs (Argo's CronWorkflow)."""

    stop_strategy: StopStrategy | None = None


class Search(PipelineSearch, Section):
    """Search of hyperparameters, which override those of ``tuning``."""


class Identity(Section):
    """Name of a run, and the accounts that its steps have."""

    name: Label
    namespace: Label = ""
    """Namespace of the runs; empty: that of the kubeconfig's context."""
    labels: Labels = {}
    """Labels of the Workflow, to find runs by (KAITO ``metadata.labels``)."""
    service_account: ObjectName = "argotune"
    """Service account of the pods."""
    service_accounts: dict[Step, ObjectName] = {}
    """Accounts of single steps that differ from ``service_account``."""
    azure_workload_identity: bool = False
    """Give pods the token of an Azure managed identity (label ``azure.workload.identity/use``)."""


class Plan(RunOptions, Identity):
    """A run, fully explicit; ``origins`` has the origin of each value."""

    schedule: Schedule | None = None
    search: Search | None = None
    resource: Resource = Resource()
    nodes: Nodes = Nodes()
    model: Model = Model()
    data: Data | None = None
    tuning: Tuning | None = None
    tracking: Tracking | None = None
    evaluation: Evaluation | None = None
    output: Output | None = None
    rollout: Rollout | None = None
    images: Images = Images()
    storage: Storage = Storage()
    budget: Budget = Budget()
    pods: dict[PodName, PodOptions] = {}
    """Environment, scheduling, resources and image pulls of pods, by step; ``all``: of every pod."""
    artifacts: Artifacts = Artifacts()
    semaphore: Semaphore = Semaphore()
    origins: Mapping[str, str] = {}

    @property
    def usd_per_hour(self) -> float:
        """Price of all nodes; 0: unknown."""
        return self.resource.usd_per_hour * self.resource.count

    @property
    def budget_hours(self) -> float:
        """Hours that the run can hold its GPU nodes; 0: no limit."""
        return min(self.budget.limit_hours(self.usd_per_hour), MAX_HOURS)

    def origin(self, path: str) -> str:
        """Return the origin of the value at a dotted path."""
        return self.origins.get(path, "built-in")

    def values(self) -> Iterator[tuple[str, Any, str]]:
        """Yield every leaf as ``(dotted path, value, origin)``, in the order of the plan."""
        for path in self.paths():
            value: Any = self
            for part in path.split("."):
                kind: type[BaseModel] = type(value)
                value = getattr(value, attribute(kind, part), None) if value is not None else None
            if value is not None:
                yield path, value, self.origin(path)

    @classmethod
    def paths(cls) -> list[str]:
        """Return the dotted paths of all leaves, as written after ``--set``."""
        return list(leaf_types())

    @classmethod
    def check_value(cls, path: str, value: Any) -> Any:
        """Validate one value; text is JSON where the field is a list or a mapping and does not parse text itself.

        Raises:
            KeyError: unknown path.
            pydantic.ValidationError: wrong type or out of bounds.
        """
        kind = leaf_types()[path]
        # Lists of models bring their own configuration.
        adapter = TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))
        return (
            adapter.validate_json(value)
            if isinstance(value, str) and is_container(kind) and not _parses_text(kind)
            else adapter.validate_python(value)
        )


@cache
def attribute(section: type[BaseModel], alias: str) -> str:
    """Return the Python name of the field that YAML, or a dotted path, calls ``alias``."""
    return next(name for name, field in section.model_fields.items() if alias in (field.alias, name))


@cache
def leaf_types() -> dict[str, Any]:
    """Return the type of each leaf, with its constraints, by dotted path."""
    return dict(_leaves(Plan))


def _leaves(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in section.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner = next((kind for kind in (field.annotation, *get_args(field.annotation)) if _is_section(kind)), None)
        if inner:
            yield from _leaves(inner, f"{path}.")
        elif path != "origins":
            # pydantic separates the constraints of a field from its type.
            yield path, Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section) and kind is not Adapter


def is_container(kind: Any) -> bool:
    """Return True if values of a type are lists or mappings, which flags pass as JSON."""
    return any(get_origin(part) in (list, dict) for part in (kind, *get_args(kind)))


def _parses_text(kind: Any) -> bool:
    return any(isinstance(item, BeforeValidator) for item in getattr(kind, "__metadata__", ()))
