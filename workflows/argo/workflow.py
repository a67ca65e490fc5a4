"""The compiled document as typed, frozen parts: what the one-machine runner honours.

Names and meanings are those of Argo's ``docs/fields.md``. See ``vocabulary.py`` for what is accepted without effect.
"""

from __future__ import annotations

from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from workflows.argo.cluster_only_fields import CLUSTER_ONLY, CLUSTER_VOLUMES
from workflows.argo.duration import seconds


def _as_text(value: Any) -> Any:
    """Argo's parameters and IntOrString fields: numbers and booleans become their text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _whole_number(text: str) -> str:
    if "{{" not in text and not text.isdecimal():
        raise ValueError(f"`{text}` is not a whole number")
    return text


def _duration(text: str) -> str:
    if "{{" not in text:
        seconds(text)
    return text


Text = Annotated[str, BeforeValidator(_as_text)]
# These may hold a tag such as {{inputs.parameters.x}}, so they stay text until the tag is replaced.
Number = Annotated[Text, AfterValidator(_whole_number)]
Duration = Annotated[Text, AfterValidator(_duration)]


class Part(BaseModel):
    """A part of the document that refuses the fields it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_cluster_fields(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        ignored = CLUSTER_ONLY.get(cls.__name__, set())
        return {key: item for key, item in value.items() if key not in ignored and item is not None}


class Metadata(Part):
    """Name, labels and annotations of the workflow."""

    name: str = ""
    generate_name: str = ""
    namespace: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Argument(Part):
    """A value handed to a template, or to the workflow."""

    name: str
    value: Text | None = None
    default: Text | None = None
    enum: list[Text] = []
    description: str = ""


class Arguments(Part):
    """Values handed on."""

    parameters: list[Argument] = []


class Supplied(Part):
    """By whoever resumes a ``suspend``."""


class ValueFrom(Part):
    """Where an output parameter comes from."""

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
        """What stands in when the output was never written."""
        return self.value_from.default if self.value_from else self.value


class OutputArtifact(Part):
    """A file or folder that a container leaves; here it is kept in the run folder, on a cluster in a repository."""

    name: str
    path: str = ""
    optional: bool = False


class Outputs(Part):
    """What a template gives back."""

    parameters: list[Output] = []
    artifacts: list[OutputArtifact] = []


class KeyRef(Part):
    """One key of a Secret or ConfigMap."""

    name: str = ""
    key: str
    optional: bool = False


class EnvSource(Part):
    """An environment value that the document doesn't hold."""

    secret_key_ref: KeyRef | None = None
    config_map_key_ref: KeyRef | None = None


class Env(Part):
    """An environment variable of a container."""

    name: str
    value: Text = ""
    value_from: EnvSource | None = None


class Mount(Part):
    """Where a volume appears in a container."""

    name: str
    mount_path: str
    sub_path: str = ""


class Container(Part):
    """What a leaf runs."""

    command: list[Text] = Field(min_length=1)
    args: list[Text] = []
    env: list[Env] = []
    working_dir: str = ""
    volume_mounts: list[Mount] = []


class Backoff(Part):
    """How long to wait before the next attempt."""

    duration: Duration = "0"
    factor: Number | None = None
    max_duration: Duration | None = None
    cap: Duration | None = None


class Retry(Part):
    """When a leaf is tried again."""

    limit: Number | None = None
    retry_policy: Annotated[str, Field(pattern="^(Always|OnFailure|OnError|OnTransientError)?$")] = ""
    expression: str = ""
    backoff: Backoff | None = None


class Step(Part):
    """One entry of a ``steps`` group."""

    name: str
    template: str = ""
    arguments: Arguments = Arguments()
    when: str = ""
    with_items: list[Any] | None = None
    with_param: str | None = None

    @property
    def fans_out(self) -> bool:
        """Whether the task becomes one node an item."""
        return self.with_items is not None or self.with_param is not None


class Task(Step):
    """One task of a DAG."""

    depends: str = ""
    dependencies: list[str] = []


class Dag(Part):
    """Tasks and what they wait for."""

    tasks: list[Task] = Field(min_length=1)
    fail_fast: bool = True


class Suspend(Part):
    """Waits for a person; a ``duration``, after which Argo goes on by itself, is not known here."""


class Template(Part):
    """A leaf (``container``, ``suspend``) or tasks made of other templates (``dag``, ``steps``)."""

    name: str
    inputs: Arguments = Arguments()
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
        """Tasks of the DAG; a group of ``steps`` is tasks that wait for the whole group before it."""
        if self.dag:
            return self.dag.tasks
        tasks: list[Task] = []
        before: list[str] = []
        for group in self.steps or []:
            tasks += [Task.model_validate(step.model_dump(by_alias=True) | {"dependencies": before}) for step in group]
            before = [step.name for step in group]
        return tasks

    @property
    def prefix(self) -> str:
        """How tags name the tasks of this template: ``{{tasks.X...}}`` or ``{{steps.X...}}``."""
        return "tasks" if self.dag else "steps"


class ClaimName(Part):
    """Metadata of a claim template."""

    name: str


class ClaimTemplate(Part):
    """A volume made for this run."""

    metadata: ClaimName


class Claim(Part):
    """A volume that outlives runs."""

    claim_name: str


class KeyToPath(Part):
    """The file name under which one key of a Secret or ConfigMap appears."""

    key: str
    path: str


class Files(Part):
    """A Secret or ConfigMap as files."""

    name: str = ""
    secret_name: str = ""
    items: list[KeyToPath] = []
    optional: bool = False


class EmptyDir(Part):
    """Scratch space of one attempt."""


class HostPath(Part):
    """A folder of the machine itself."""

    path: str


class Volume(Part):
    """A volume of the pods; of kinds that only a cluster can mount, the name alone is kept."""

    name: str
    persistent_volume_claim: Claim | None = None
    empty_dir: EmptyDir | None = None
    secret: Files | None = None
    config_map: Files | None = None
    host_path: HostPath | None = None
    elsewhere: str = Field(default="", alias="(elsewhere)")
    """The kind (``nfs``, ``csi``...), when this machine needs to be told a folder for it."""

    @model_validator(mode="before")
    @classmethod
    def _kinds_of_clusters(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {"(elsewhere)" if key in CLUSTER_VOLUMES else key: key if key in CLUSTER_VOLUMES else item
                for key, item in value.items()}  # fmt: skip


def _grace_period(patch: Any) -> int | None:
    """``podSpecPatch``: of a pod's own settings, the grace period is the one that means something here."""
    given = yaml.safe_load(patch) if isinstance(patch, str) else patch
    if given is None or isinstance(given, int):
        return given
    if not isinstance(given, dict) or set(given) - {"terminationGracePeriodSeconds"}:
        raise ValueError("only `terminationGracePeriodSeconds` is understood here")
    return int(given["terminationGracePeriodSeconds"])


Grace = Annotated[int | None, BeforeValidator(_grace_period)]


class Spec(Part):
    """The workflow: its templates, where it begins, and what runs when it ends."""

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
        """The template of this name."""
        return next(template for template in self.templates if template.name == name)


class CronSpec(Part):
    """The schedule, of which one machine runs one turn."""

    workflow_spec: Spec


class Workflow(Part):
    """A document that can be run; ``spec`` is that of a WorkflowTemplate or the ``workflowSpec`` of a CronWorkflow."""

    api_version: str = "argoproj.io/v1alpha1"
    kind: str
    metadata: Metadata = Metadata()
    spec: Spec


class CronWorkflow(Workflow):
    """A document that runs on a schedule."""

    spec: CronSpec  # type: ignore[assignment]


Template.model_rebuild()
