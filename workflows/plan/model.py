"""The plan: every value a run needs, explicit and frozen, each with the place it comes from.

A plan is merged from layers, the later winning: built-in, preset, site profile, ConfigMap, Workspace, environment
(``ARGOTUNE_TUNING__EPOCHS=1``), flag (``--set tuning.epochs=1``). Field names are those of the Workspace where KAITO
has the field, else those of the library that reads the value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel

from steps.models.sharding import Sharding
from steps.tune.tracking_tools import ReportTo
from workflows.spec.pipeline import Duration, TrackingUri
from workflows.spec.schedule import Concurrency, Count, Schedules, StopExpression, Timezone
from workflows.version import VERSION

Step = Literal[
    "preflight", "provision", "download", "check", "tune", "evaluate", "promote", "package", "rollout", "release",
    "report",
]  # fmt: skip


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, protected_namespaces=()
    )


class Resource(_Section):
    """The nodes asked for."""

    instance_type: str = ""
    """VM size (KAITO ``resource.instanceType``); empty: nodes that are already there, found by ``labels``."""
    count: int = 1
    gpus: int = 1
    """GPUs of one node, requested by the pods that compute."""
    gpu_resource: str = "nvidia.com/gpu"
    """What Kubernetes calls them; ``nvidia.com/mig-PROFILE`` for a part of one (KAITO ``resource.partition``)."""
    labels: dict[str, str] = {}
    """Node labels that must match (KAITO ``resource.labelSelector``)."""
    preferred_nodes: list[str] = []
    """Names of nodes to take before others (KAITO ``resource.preferredNodes``)."""


class Nodes(_Section):
    """Who makes the GPU nodes exist, and how (``steps/provision/step.py``)."""

    provider: Literal["autoscaler", "existing", "aks", "karpenter"] = "autoscaler"
    """``autoscaler``: the pods ask, and whatever scales the cluster brings nodes; ``existing``: nodes that are there
    are checked; ``aks`` and ``karpenter``: a pool of this run is made, and released when it ends."""
    fallback_instance_types: list[str] = []
    """Sizes to take, in this order, where the first is not to be had."""
    spot: bool = False
    zones: list[str] = []
    lease: Duration = "26h"
    """A pool older than this belongs to no run any more (``argotune gc``)."""
    subscription: str = ""
    resource_group: str = ""
    cluster: str = ""
    """AKS: of the managed cluster."""
    node_class: str = "default"
    """Karpenter: name of an AKSNodeClass, or ``KIND/NAME`` (``KaitoNodeClass/default`` for gpu-provisioner)."""


class Model(_Section):
    """The base model; without a preset it is the business of the pod in ``rollout.template``."""

    preset: str = ""
    repository: str = ""
    """Hugging Face id, or a folder of the models volume."""
    revision: str = "main"
    access_secret: str = ""
    """Name of the Kubernetes Secret with key ``HF_TOKEN`` (KAITO ``modelAccessSecret``)."""


class Data(_Section):
    """Where the rows come from, and how they are split."""

    urls: list[str] = []
    volume: dict[str, Any] | None = None
    """A Kubernetes VolumeSource that holds parquet files (KAITO ``tuning.input.volumeSource``)."""
    image: str = ""
    """An OCI image whose ``/data`` holds parquet files (KAITO ``tuning.input.image``)."""
    image_pull_secrets: list[str] = []
    eval_split: float = 0.1
    """Share of the rows held out for the evaluation."""
    columns: dict[str, str] = {}
    """Columns that the files call otherwise than the formats of ``steps/data/row_formats.py`` do."""
    weights: dict[str, float] = {}
    """How many times the rows of a file are trained on in an epoch, by its name; 1 where nothing is written."""
    shuffle: bool = True
    seed: int = 42
    allow_private_hosts: bool = False


class Tuning(_Section):
    """How the adapter is trained. The maps take the keys of KAITO's ``training_config.yaml`` sections."""

    method: Literal["lora", "qlora"] = "qlora"
    objective: Literal["sft", "dpo"] = "sft"
    """``sft``: learn the answers; ``dpo``: learn to prefer the chosen answer of a pair to the rejected one."""
    beta: float = Field(0.1, gt=0)
    """Of ``dpo``: how much it costs to move away from the base model."""
    epochs: float = Field(3, gt=0)
    max_steps: int = Field(-1, ge=-1)
    """Stop after so many optimizer steps; -1: as many as ``epochs`` need."""
    learning_rate: float = Field(2e-4, gt=0)
    batch_size: int = Field(4, ge=1)
    """Rows that a process computes at a time; a step learns from those of all processes."""
    processes: int = Field(0, ge=0)
    """That train together, each on a GPU; 0: one for each GPU of the node."""
    sharding: Sharding = "auto"
    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: list[str] = []
    """Linear layers that get an adapter; empty: those of the preset."""
    max_length: int = Field(1024, ge=1)
    """Tokens of a row; longer rows are cut."""
    seed: int = 42
    training_arguments: dict[str, Any] = {}
    lora_config: dict[str, Any] = {}
    quantization_config: dict[str, Any] = {}
    model_arguments: dict[str, Any] = Field(default={}, alias="modelConfig")
    timeout: str = "24h"
    retries: int = 3
    """After a failure."""
    preemptions: int = 10
    """Attempts that make up for nodes that were lost or taken back (spot), besides ``retries``."""


class Tracking(_Section):
    """Where the metrics of the training go besides the run's report."""

    report_to: ReportTo = "none"
    uri: TrackingUri = ""
    """Of the server (``MLFLOW_TRACKING_URI``, ``WANDB_BASE_URL``)."""
    project: str = ""
    """Its part of the server (``MLFLOW_EXPERIMENT_NAME``, ``WANDB_PROJECT``)."""
    secret: str = ""
    """Name of the Kubernetes Secret whose keys are the tool's environment variables."""


class Evaluation(_Section):
    """How the adapter is compared with its base; when it may go on is said by ``steps/evaluate/gate.py``."""

    samples: int = 5
    max_new_tokens: int = 64
    tasks: list[str] = []
    task_limit: int = Field(0, ge=0)
    """Samples of each task of lm-eval; 0: all."""
    max_loss_ratio: float = 1.0
    confident: bool = False
    min_exact_match: float | None = Field(None, ge=0, le=1)
    min_rouge_l: float | None = Field(None, ge=0, le=1)
    max_regressions: float | None = Field(None, ge=0, le=1)
    min_task_scores: dict[str, float] = {}
    better_than_previous: bool = True


class Output(_Section):
    """Where the adapter goes."""

    image: str = ""
    push_secret: str = ""
    immutable: bool = False
    """Whether the image's tag must not name another image already."""
    volume: dict[str, Any] | None = None


class Adapter(_Section):
    """One more adapter to serve (KAITO ``inference.adapters``)."""

    name: str
    image: str = ""
    volume: dict[str, Any] | None = None


class Rollout(_Section):
    """What is served, and the question that proves it."""

    adapters: list[Adapter] = []
    pull_secret: str = ""
    """Secret of the registries that adapters come from (KAITO ``inference.adapters[].source.imagePullSecrets``)."""
    question: str = "What can you help me with?"
    port: int = 0
    deadline: str = "15m"
    replicas: int = 1
    """Servers behind the Service (KAITO InferenceSet ``replicas``)."""
    max_replicas: int = 0
    """Servers at most, added while requests wait; 0: always ``replicas``."""
    prometheus: str = ""
    """Address of a Prometheus that KEDA asks how many requests wait; empty: the cluster's metrics API."""
    canary: int = 0
    """Percent of the requests that a new adapter gets until ``argotune promote``; 0: it takes over once it answers."""
    gateway: str = ""
    """Gateway (``namespace/name``) that splits requests exactly; empty: the number of servers splits them."""
    hot_load: bool = True
    """Whether servers take other adapters while they run; if not, each adapter has servers of its own."""
    template: dict[str, Any] | None = None
    """The user's own pod (KAITO ``inference.template``); a cluster's rollout serves it as it is."""
    server_arguments: dict[str, Any] = {}
    """vLLM flags (KAITO ``inference_config.yaml``, section ``vllm``)."""


class Images(_Section):
    """Images the steps run in (``containers/``)."""

    control: str = f"ghcr.io/argotune/control:{VERSION}"
    tune: str = f"ghcr.io/argotune/tune:{VERSION}"
    serve: str = f"ghcr.io/argotune/serve:{VERSION}"


MODELS = "/mnt/models"
"""Where pods have the volume of the base models."""


class Storage(_Section):
    """Volumes of a run."""

    size: str = "100Gi"
    """Of the work volume, made for each run."""
    storage_class: str = ""
    models_claim: str = "argotune-models"
    """PersistentVolumeClaim that keeps base models between runs."""


class Artifacts(_Section):
    """What goes to the artifact repository of the site (Argo's default one), where it has one."""

    report: bool = False
    """The report of each run, which the Argo UI then shows."""


class Semaphore(_Section):
    """How many GPU pods may be at work in all runs: a key of a ConfigMap (``argo/install``) says it."""

    config_map: str = "argotune-semaphores"
    key: str = "gpu"
    """One for each pool of GPUs; empty: there is no such limit."""


class StopStrategy(_Section):
    """When the schedule ends by itself."""

    expression: StopExpression | None = None


class Schedule(_Section):
    """When the Workspace is tuned anew (Argo's CronWorkflow)."""

    schedules: Schedules
    timezone: Timezone = "Etc/UTC"
    concurrency_policy: Concurrency = "Forbid"
    starting_deadline_seconds: Count = 3600
    successful_jobs_history_limit: Count = 3
    failed_jobs_history_limit: Count = 3
    stop_strategy: StopStrategy = StopStrategy()
    suspend: bool = False


class Plan(_Section):
    """A run, fully explicit; ``origins`` tells where each value comes from."""

    name: str
    namespace: str = ""
    labels: dict[str, str] = {}
    """Of the Workflow, to look runs up by (KAITO ``metadata.labels``)."""
    service_account: str = "argotune"
    service_accounts: dict[Step, str] = {}
    """Accounts of single steps, where they differ from ``service_account``."""
    azure_workload_identity: bool = False
    """Whether pods get the token of an Azure managed identity (label ``azure.workload.identity/use``)."""
    time_limit: Duration | None = None
    """Of the whole run."""
    approval: bool = False
    """Whether somebody must answer YES before the adapter is packaged and served."""
    schedule: Schedule | None = None
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
    artifacts: Artifacts = Artifacts()
    semaphore: Semaphore = Semaphore()
    origins: Mapping[str, str] = {}

    def origin(self, path: str) -> str:
        """Where the value at a dotted path comes from."""
        return self.origins.get(path, "built-in")

    def values(self) -> Iterator[tuple[str, Any, str]]:
        """Every leaf as ``(dotted path, value, origin)``, in the order of the plan."""
        for path in self.paths():
            value: Any = self
            for part in path.split("."):
                kind: type[BaseModel] = type(value)
                value = getattr(value, attribute(kind, part), None) if value is not None else None
            if value is not None:
                yield path, value, self.origin(path)

    @classmethod
    def paths(cls) -> list[str]:
        """Dotted paths of all leaves, as written after ``--set``."""
        return list(_kinds())

    @classmethod
    def check_value(cls, path: str, value: Any) -> Any:
        """Validate one value; text is read as JSON where the field holds a list or a map.

        Raises:
            KeyError: for a path that is not of the plan.
            pydantic.ValidationError: for a value of the wrong type.
        """
        kind = _kinds()[path]
        if isinstance(value, str) and _is_container(kind):
            return TypeAdapter(kind).validate_json(value)
        return TypeAdapter(kind).validate_python(value)


@cache
def attribute(section: type[BaseModel], alias: str) -> str:
    """Name in Python of the field that YAML, or a dotted path, calls ``alias``."""
    return next(name for name, known in section.model_fields.items() if alias in (known.alias, name))


@cache
def _kinds() -> dict[str, Any]:
    """Type of each leaf by its dotted path."""
    return dict(_leaves(Plan))


def _leaves(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, known in section.model_fields.items():
        path = f"{prefix}{known.alias or name}"
        inner = next((kind for kind in (known.annotation, *get_args(known.annotation)) if _is_section(kind)), None)
        if inner:
            yield from _leaves(inner, f"{path}.")
        elif path != "origins":
            # pydantic keeps the validators of a field apart from its type.
            yield path, Annotated[known.annotation, *known.metadata] if known.metadata else known.annotation


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, _Section) and kind is not Adapter


def _is_container(kind: Any) -> bool:
    return any(get_origin(part) in (list, dict) for part in (kind, *get_args(kind)))
