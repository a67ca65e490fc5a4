"""Options, settings and result of the rollout step: the same for a local server and for a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from steps.runtime.options import FreeText, Options, Pattern

MAX_TOKENS = 200
GREETING = "What can you help me with?"
"""Question where neither the settings nor an evaluation have one."""
Gateway = Annotated[str, Pattern(r"([-a-z0-9.]+/[-a-z0-9.]+)?", "a Gateway as NAMESPACE/NAME")]
Namespace = Annotated[str, Pattern(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?|\*", "the name of a namespace, or *")]
SecretName = Annotated[str, Pattern(r"([a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?)?", "the name of a Secret")]
MAX_PER_MINUTE = 1_000_000_000
Url = Annotated[str, Pattern(r"(https?://\S+)?", "a URL such as http://prometheus.monitoring:9090")]


class RolloutOptions(Options):
    """Deployment of an adapter, and the question that tests it."""

    question: Annotated[str, FreeText()] = Field("", max_length=400_000)
    """Question that the base model and the first adapter answer once the server is up; empty: a held-out question of
    the evaluation."""
    port: int = Field(0, ge=0, le=65535)
    """Port of a local server; 0: the first free one from 8000 on. A cluster's Service has KAITO's ports."""
    runtime: Literal["vllm", "transformers"] = "vllm"
    """Server (KAITO `kaito.sh/runtime`). Only a local run without vLLM falls back to `transformers`."""
    api_keys_secret: SecretName = ""
    """Secret whose entries are the API keys of clients, each NAME: KEY; requests need one of them. Changed entries
    apply without a restart. The run's own requests use the entry `argotune`, or else the first. Local runs:
    `--volume SECRET=DIRECTORY`."""
    requests_per_minute: int = Field(0, ge=0, le=MAX_PER_MINUTE)
    """Requests for completions that a server accepts per minute and API key, or from all clients without
    `apiKeysSecret`; more get HTTP 429 with Retry-After; 0: no limit."""
    tokens_per_minute: int = Field(0, ge=0, le=MAX_PER_MINUTE)
    """Prompt and answer tokens that a server accepts per minute, as for `requestsPerMinute`; 0: no limit."""
    replicas: int = Field(1, ge=1, le=100)
    """Cluster: servers behind the Service (KAITO InferenceSet `spec.replicas`)."""
    nodes: int = Field(1, ge=1, le=100)
    """Cluster: nodes of each server: tensor parallel on the GPUs of a node, pipeline parallel across nodes. Default:
    `resource.count`, if the weights do not fit one node."""
    group_kind: Literal["auto", "leaderworkerset", "statefulset"] = "auto"
    """Cluster, with `nodes` of 2 or more: object that has the pods. leaderworkerset: a LeaderWorkerSet, which must be
    installed; statefulset: a StatefulSet; auto: a LeaderWorkerSet where it is installed, or else a StatefulSet."""
    max_replicas: int = Field(0, ge=0, le=1000)
    """Cluster: maximum number of servers, added while requests wait; 0: always `replicas`."""
    prometheus: Url = ""
    """Cluster: URL of the Prometheus that tells KEDA how many requests wait; empty: an HPA on the metrics API. If it
    is a Service, its namespace reaches the servers' metrics (container port `metrics`, 5001)."""
    canary: int = Field(0, ge=0, le=90)
    """Cluster: percent of requests sent to a new adapter until `argotune promote`; 0: all, once it answers."""
    gateway: Gateway = ""
    """Cluster: Gateway (`NAMESPACE/NAME`) that splits requests exactly; empty: split by the number of servers."""
    allowed_namespaces: list[Namespace] = []
    """Cluster: namespaces whose pods can send requests and read metrics (NetworkPolicy), besides those of the run and
    `gateway`; `*`: all."""
    hot_load: bool = True
    """Cluster: load other adapters into running servers; false: each adapter gets its own servers, which mount its
    image where the cluster supports image volumes."""


class AdapterSource(Options):
    """An adapter to serve: one of ``path`` and ``image``."""

    name: str
    """Model name of the adapter in requests."""
    path: str = ""
    """Folder with adapter_config.json and adapter_model.safetensors; a relative one is below the work folder."""
    image: str = ""
    """OCI reference of an adapter image (KAITO's or ours)."""


class Settings(RolloutOptions):
    """Serve a base model and adapters: on a cluster as a Deployment, else by a local server."""

    work: Path
    """Work folder that the steps share."""
    name: str = ""
    """Name of the service."""
    preset: str = ""
    """Name that the base model is served under; empty: the model's own."""
    model: str
    """Hugging Face id of the base model, or a folder that holds it."""
    revision: str = ""
    """Commit of the model."""
    adapters: list[AdapterSource] = []
    """JSON list of {name, path or image}; the first answers where a request names no model."""
    adapter_folders: list[str] = []
    """JSON list of more adapter folders, each served under the folder's name."""
    question: Annotated[str, FreeText()] = ""
    """Question that the base model and the first adapter answer; empty: a held-out one of the evaluation."""
    server_arguments: dict[str, Any] = {}
    """JSON map of vLLM flags (KAITO's inference_config.yaml, section vllm)."""
    deadline_seconds: float = Field(900, gt=0)
    """Time for the server to come up and answer."""
    image_digest: str = ""
    """Digest of the packaged image: another one means another rollout."""
    image_reference: str = ""
    """Cluster: where the packaged adapter was pushed to, `repository@digest`."""
    serve_image: str = ""
    """Cluster: image that the servers run in."""
    template: dict[str, Any] | None = None
    """Cluster: the user's own pod (KAITO `inference.template`), served on the nodes of `resource`."""
    gpus: Annotated[int, Field(ge=0)] = 1
    """Cluster: GPUs of each server."""
    gpu_resource: str = "nvidia.com/gpu"
    """Cluster: resource name by which GPUs are requested."""
    queue: str = ""
    """Cluster: LocalQueue of Kueue that admits the servers; empty: none."""
    node_labels: dict[str, str] = {}
    """Cluster: labels that the nodes must have (KAITO `resource.labelSelector`)."""
    instance_types: list[str] = []
    """Cluster: instance types of nodes, the first preferred; empty: any."""
    preferred_nodes: list[str] = []
    """Cluster: names of nodes to prefer (KAITO `resource.preferredNodes`)."""
    context_length: int = Field(0, ge=0)
    """Cluster: longest context that fits the GPUs, by the estimate; 0: the model's own."""
    models_claim: str = ""
    """Cluster: PersistentVolumeClaim with the base models; empty: each server fetches its own."""
    access_secret: str = ""
    """Cluster: Secret with key HF_TOKEN (KAITO `modelAccessSecret`)."""
    model_secret: SecretName = ""
    """Cluster: Secret with the variables of the object store that the base model comes from."""
    model_pull_secret: SecretName = ""
    """Cluster: dockerconfigjson Secret of the registry of the base model's image."""
    registry_secrets: list[str] = []
    """Cluster: dockerconfigjson Secrets of the registries that adapters are pulled from, the first winning."""
    adapter_volumes: dict[str, dict[str, Any]] = {}
    """Cluster: JSON map of adapters to the Kubernetes VolumeSource that holds them."""
    service_account: str = ""
    """Cluster: service account of the servers, where they need one to pull (workload identity)."""
    pod_options: dict[str, Any] = {}
    """Cluster: JSON map with parts of the servers' pods: `metadata`, `spec`, `container` (site profile: `pods`)."""


@dataclass(frozen=True)
class Result:
    """Address of the server, and its answers."""

    endpoint: str
    """Root address of the OpenAI-compatible server."""
    answer: str
    """The first adapter's answer to the question (the base's, without adapters)."""
    base_answer: str
    """The base model's answer to the same question."""
    server: str
    """Server that answered, as it reports: ``vllm`` or ``transformers``; ``unknown`` if an older image reports none;
    ``own`` for a custom pod, empty if that answered no question."""
    agreement: str = ""
    """Result of comparing the served adapter's answers with those of the evaluation."""
    question: str = ""
    """The question that they answered; empty if none was asked."""
