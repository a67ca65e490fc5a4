"""A Workflow in typed, immutable parts: the fields that the local runner supports.

Names and meanings are those of Argo's ``docs/fields.md``. ``cluster_only_fields.py`` lists the ignored fields.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from workflows.argo.cluster_only_fields import CLUSTER_ONLY, drop_cluster_types
from workflows.argo.duration import parse_duration


def _to_string(value: Any) -> Any:
    """Convert numbers and booleans to strings, as Argo does in parameters and IntOrString fields."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _check_integer(text: str) -> str:
    if "{{" not in text and not text.isdecimal():
        raise ValueError(f"`{text}` is not an integer")
    return text


def _check_duration(text: str) -> str:
    if "{{" not in text:
        parse_duration(text)
    return text


Text = Annotated[str, BeforeValidator(_to_string)]
# These can contain a tag such as {{inputs.parameters.x}}, so they are strings until the tag is replaced.
Number = Annotated[Text, AfterValidator(_check_integer)]
Duration = Annotated[Text, AfterValidator(_check_duration)]


class Part(BaseModel):
    """A part of the document; unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _drop_cluster_only_fields(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        ignored = CLUSTER_ONLY.get(cls.__name__, set())
        return {key: item for key, item in value.items() if key not in ignored and item is not None}


class Metadata(Part):
    """Name, labels and annotations of the Workflow."""

    name: str = ""
    generate_name: str = ""
    namespace: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Argument(Part):
    """A parameter of a template or of the Workflow."""

    name: str
    value: Text | None = None
    default: Text | None = None
    enum: list[Text] = []
    description: str = ""


class Arguments(Part):
    """Parameters of a template or of a call."""

    parameters: list[Argument] = []


class RawArtifact(Part):
    """Content of an input artifact."""

    data: str


class InputArtifact(Part):
    """A file with content from the document, which is written before the container starts."""

    name: str
    path: str
    raw: RawArtifact | None = None
    optional: bool = False


class Inputs(Part):
    """Inputs of a template."""

    parameters: list[Argument] = []
    artifacts: list[InputArtifact] = []


class Supplied(Part):
    """Marks an output that is set when a ``suspend`` is resumed."""


class ValueFrom(Part):
    """Source of an output parameter."""

    path: str = ""
    parameter: str = ""
    supplied: Supplied | None = None
    default: Text | None = None


class Output(Part):
    """An output parameter of a template."""

    name: str
    value: Text | None = None
    value_from: ValueFrom | None = None
    global_name: str = ""
    description: str = ""

    @property
    def default(self) -> str | None:
        """Value of an output that was not written; None when there is none."""
        return self.value_from.default if self.value_from else self.value


class OutputArtifact(Part):
    """A file or directory that a container writes; the local runner copies it to the run directory."""

    name: str
    path: str = ""
    optional: bool = False


class Outputs(Part):
    """Outputs of a template."""

    parameters: list[Output] = []
    artifacts: list[OutputArtifact] = []


class KeyRef(Part):
    """A key of a Secret or ConfigMap."""

    name: str = ""
    key: str
    optional: bool = False


class EnvSource(Part):
    """Source of an environment variable outside the document."""

    secret_key_ref: KeyRef | None = None
    config_map_key_ref: KeyRef | None = None


class Env(Part):
    """An environment variable of a container."""

    name: str
    value: Text = ""
    value_from: EnvSource | None = None


class Mount(Part):
    """A volume mount of a container."""

    name: str
    mount_path: str
    sub_path: str = ""
    read_only: bool = False
    """Not enforced: a directory cannot be read-only for a single process."""


class Container(Part):
    """The container of a template."""

    command: list[Text] = Field(min_length=1)
    args: list[Text] = []
    env: list[Env] = []
    working_dir: str = ""
    volume_mounts: list[Mount] = []


class Backoff(Part):
    """Wait before the next attempt."""

    duration: Duration = "0"
    factor: Number | None = None
    max_duration: Duration | None = None
    cap: Duration | None = None


class Retry(Part):
    """Retry strategy of a template."""

    limit: Number | None = None
    retry_policy: Annotated[str, Field(pattern="^(Always|OnFailure|OnError|OnTransientError)?$")] = ""
    expression: str = ""
    backoff: Backoff | None = None


class Step(Part):
    """A step of a ``steps`` template."""

    name: str
    template: str = ""
    arguments: Arguments = Arguments()
    when: str = ""
    with_items: list[Any] | None = None
    with_param: str | None = None
    continue_on: dict[Literal["failed", "error"], bool] = {}

    @property
    def fans_out(self) -> bool:
        """True for a task that runs once for each item."""
        return self.with_items is not None or self.with_param is not None


class Task(Step):
    """A task of a DAG."""

    depends: str = ""
    dependencies: list[str] = []


class Dag(Part):
    """Tasks and their dependencies."""

    tasks: list[Task] = Field(min_length=1)
    fail_fast: bool = True


class Suspend(Part):
    """Waits for an answer; ``duration`` is not supported."""


class Template(Part):
    """A template: ``container``, ``suspend``, ``dag`` or ``steps``."""

    name: str
    inputs: Inputs = Inputs()
    outputs: Outputs = Outputs()
    container: Container | None = None
    suspend: Suspend | None = None
    dag: Dag | None = None
    steps: list[list[Step]] | None = None
    retry_strategy: Retry | None = None
    timeout: Duration | None = None
    active_deadline_seconds: Number | None = None
    parallelism: int | None = None
    fail_fast: bool = False
    volumes: list[Volume] = []
    pod_spec_patch: Grace = None

    @property
    def tasks(self) -> list[Task]:
        """Tasks of the DAG; each step depends on all steps of the previous group."""
        if self.dag:
            return self.dag.tasks
        tasks: list[Task] = []
        previous: list[str] = []
        for group in self.steps or []:
            fields = {"dependencies": previous}
            tasks += [Task.model_validate(step.model_dump(by_alias=True) | fields) for step in group]
            previous = [step.name for step in group]
        return tasks

    @property
    def prefix(self) -> str:
        """First part of tags of its tasks: ``{{tasks.X...}}`` or ``{{steps.X...}}``."""
        return "tasks" if self.dag else "steps"


class ClaimName(Part):
    """Metadata of a volume claim template."""

    name: str


class ClaimTemplate(Part):
    """A volume that is created for the run."""

    metadata: ClaimName


class Claim(Part):
    """A PersistentVolumeClaim, which outlives the run."""

    claim_name: str


class KeyToPath(Part):
    """File name of a key of a Secret or ConfigMap."""

    key: str
    path: str


class Files(Part):
    """A Secret or ConfigMap mounted as files."""

    name: str = ""
    secret_name: str = ""
    items: list[KeyToPath] = []
    optional: bool = False


class ProjectedSource(Part):
    """A source of a projected volume."""

    secret: Files | None = None
    config_map: Files | None = None


class Projected(Part):
    """Secrets and ConfigMaps in one directory."""

    sources: list[ProjectedSource] = []


class EmptyDir(Part):
    """Scratch space of an attempt."""


class HostPath(Part):
    """A directory of the host."""

    path: str


class Volume(Part):
    """A volume of the pods; only the name is used of types that only a cluster can mount."""

    name: str
    persistent_volume_claim: Claim | None = None
    empty_dir: EmptyDir | None = None
    secret: Files | None = None
    config_map: Files | None = None
    host_path: HostPath | None = None
    projected: Projected | None = None
    cluster_type: str = Field(default="", alias="(cluster type)")
    """Type that only a cluster can mount (``nfs``, ``csi``...): the local runner requires a directory for it."""

    @model_validator(mode="before")
    @classmethod
    def _drop_cluster_types(cls, value: Any) -> Any:
        return drop_cluster_types(value) if isinstance(value, dict) else value


def _grace_period(patch: Any) -> int | None:
    """Return the grace period in ``podSpecPatch``, the only supported field of a pod.

    An integer is already parsed, as in the dump of a template.
    """
    fields = yaml.safe_load(patch) if isinstance(patch, str) else patch
    if fields is None or isinstance(fields, int):
        return fields
    if not isinstance(fields, dict) or set(fields) - {"terminationGracePeriodSeconds"}:
        raise ValueError("only `terminationGracePeriodSeconds` is supported in podSpecPatch")
    return int(fields["terminationGracePeriodSeconds"])


Grace = Annotated[int | None, BeforeValidator(_grace_period)]


class Spec(Part):
    """Templates, entrypoint and exit handler of a Workflow."""

    entrypoint: str
    templates: list[Template] = Field(min_length=1)
    arguments: Arguments = Arguments()
    on_exit: str = ""
    parallelism: int | None = None
    active_deadline_seconds: int | None = Field(default=None, gt=0)
    volumes: list[Volume] = []
    volume_claim_templates: list[ClaimTemplate] = []
    pod_spec_patch: Grace = None

    def template(self, name: str) -> Template:
        """Return a template by name."""
        return next(template for template in self.templates if template.name == name)


class Workflow(Part):
    """A document that can run; ``spec`` is the ``workflowSpec`` of a CronWorkflow."""

    api_version: str = "argoproj.io/v1alpha1"
    kind: str
    metadata: Metadata = Metadata()
    spec: Spec


Template.model_rebuild()
