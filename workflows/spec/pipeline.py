"""The ``pipeline:`` block: settings that KAITO has no fields for. A Workspace without it is a valid KAITO Workspace.

What a step reads is declared once, as its options in ``steps/*/settings.py``; fields that only the compiler reads are
declared here. The plan (``workflows/plan/model.py``) inherits these classes.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from steps.download.settings import DataOptions, InputOptions
from steps.evaluate.settings import EvaluationOptions
from steps.provision.settings import NodesOptions
from steps.rollout.settings import RolloutOptions
from steps.runtime.gpu_time import MAX_HOURS
from steps.tune.settings import TrackingOptions, TrackingUri, TuneOptions
from workflows.spec.field_types import Duration, Label, ObjectName, Quantity, Word
from workflows.spec.fields import Fields
from workflows.spec.schedule import PipelineSchedule
from workflows.spec.search import PipelineSearch


class PipelineInput(InputOptions, Fields):
    """One of several inputs that are mixed."""

    volume_source: dict[str, Any] | None = None
    """A Kubernetes VolumeSource with data files; instead of urls."""


class PipelineModel(Fields):
    """Base model from another place than the repository of its preset."""

    repository: Word = ""
    """Hugging Face id (also `hf://ORG/NAME@REVISION`); a directory of the models volume (`/mnt/models/FOLDER`); files
    of an OCI image (`oci://REGISTRY/NAME:TAG`); or objects of a store (`s3://BUCKET/PREFIX`, `gs://`, `abfss://`,
    `az://`). Images and objects are copied to the models volume. Default: the preset's repository."""
    revision: Word = ""
    """Commit, branch or tag of a repository of the hub; digest (`sha256:...`) that an image or the objects must have.
    Default: the preset's commit, or the present digest."""
    secret: ObjectName = ""
    """Secret whose keys are environment variables of the pods that read the objects, as for `pipeline.data.secret`,
    without HF_TOKEN (`modelAccessSecret`). Not needed with workload identity."""


class PipelineData(DataOptions, Fields):
    """Options for reading and splitting the rows."""

    inputs: list[PipelineInput] = Field(default_factory=list)
    """Inputs that are mixed with `tuning.input`, or with each other if that is empty (`input: {}`)."""

    secret: ObjectName = ""
    """Secret whose keys are environment variables of the pods that read the data: HF_TOKEN; AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL; AZURE_STORAGE_ACCOUNT, AZURE_STORAGE_KEY,
    AZURE_STORAGE_SAS_TOKEN. Not needed with workload identity."""


class PipelineEvaluation(EvaluationOptions, Fields):
    """Comparison of the adapter with its base model, and the gate: all its rules must pass."""


class PipelineRollout(RolloutOptions, Fields):
    """Serving and testing of the adapter."""

    deadline: Duration = "15m"
    """Time for the server to come up and answer."""


class PipelineStorage(Fields):
    """The volume that the steps of a run share."""

    size: Quantity = "100Gi"
    """Capacity for data, checkpoints, adapter and image."""
    storage_class: ObjectName = ""
    """Storage class of the work volume (Kubernetes `storageClassName`); empty: the cluster's default."""
    fetch_model: bool = False
    """Fetch the base model into the models claim on a CPU node, while the GPU nodes come up. The claim must be
    ReadWriteMany, unless all pods run on one node."""


class PipelineTune(TuneOptions, Fields):
    """Objective, parallelism and limits of the training."""

    timeout: Duration = "24h"
    """Time limit of each attempt."""
    retries: int = Field(3, ge=0, le=100)
    """Retries after a failure; each continues from the last checkpoint."""
    preemptions: int = Field(10, ge=0, le=1000)
    """Further retries for nodes that were lost or reclaimed (spot)."""


class PipelineTracking(TrackingOptions, Fields):
    """Destination of the metrics, in addition to the run's report."""

    uri: TrackingUri = ""
    """URL of the server; empty: that of the environment, of the Secret, or W&B's own."""
    project: str = Field("", max_length=256)
    """MLflow experiment or W&B project; empty: that of the environment, of the Secret, or the tool's default."""
    secret: ObjectName = ""
    """Secret whose keys are the tool's environment variables, such as MLFLOW_TRACKING_USERNAME and
    MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN, or WANDB_API_KEY."""


class PipelineNodes(NodesOptions, Fields):
    """Alternative nodes, and their lifetime. The site profile sets their provider."""

    lease: Duration = "26h"
    """Age after which the nodes of a run count as orphaned (`argotune gc`)."""


class PipelineBudget(Fields):
    """Limit of what a run can spend on GPUs. When it is reached, the run ends with exit code 6 and its checkpoint."""

    usd: float = Field(0, ge=0, le=10_000_000)
    """USD for the GPU nodes, converted to hours by the price of the instance type; 0: no limit."""
    hours: float = Field(0, ge=0, le=MAX_HOURS)
    """Hours that tune and evaluate can hold the GPU nodes, all attempts together; 0: no limit."""


class RunOptions(Fields):
    """Limits of a whole run."""

    approval: bool = False
    """Require a person to answer YES before an evaluated adapter is packaged and served."""
    queue: Label = ""
    """LocalQueue of Kueue that admits the GPU pods: label `kueue.x-k8s.io/queue-name` of tune, evaluate and the
    servers. The time limits of tune and evaluate then count from the start of the pod on its node. Empty: no queue."""
    time_limit: Duration | None = None
    """Time limit of the whole run, including waiting for nodes and approval; the exit handler still runs. Default: 7
    days (with approval 30), or twice the timeout of tune if that is longer."""


class Pipeline(RunOptions):
    """Settings that KAITO has no fields for; every part is optional."""

    model: PipelineModel = PipelineModel()
    data: PipelineData = PipelineData()
    evaluation: PipelineEvaluation = PipelineEvaluation()
    rollout: PipelineRollout = PipelineRollout()
    storage: PipelineStorage = PipelineStorage()
    budget: PipelineBudget = PipelineBudget()
    tune: PipelineTune = PipelineTune()
    tracking: PipelineTracking = PipelineTracking()
    nodes: PipelineNodes = PipelineNodes()
    schedule: PipelineSchedule | None = None
    """Schedule of the runs (``argotune compile --as cron``)."""
    search: PipelineSearch | None = None
    """Search of hyperparameters: the best of several adapters is packaged and served."""
