"""What the rollout is told, and what it tells: the same on one machine and on a cluster."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.runtime.entrypoint import settings

MAX_TOKENS = 200
GREETING = "Hello!"


@settings
class AdapterSource:
    """Where an adapter to serve is: one of ``path`` and ``image``."""

    name: str
    """Name that requests call it by."""
    path: str = ""
    """Folder with adapter_config.json and adapter_model.safetensors; a relative one is below the work folder."""
    image: str = ""
    """OCI reference of an adapter image (KAITO's or ours)."""


@settings
class Settings:
    """Serve a base model and adapters: on a cluster as a Deployment, else by a server on this machine."""

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
    adapters: list[AdapterSource] = dataclasses.field(default_factory=list)
    """JSON list of {name, path or image}; the first answers where a request names no model."""
    adapter_folders: list[str] = dataclasses.field(default_factory=list)
    """JSON list of more adapter folders, each served under the folder's name."""
    question: str = ""
    """Asked of the first adapter and of the base; empty: they are only greeted."""
    server_arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    """JSON map of vLLM flags (KAITO's inference_config.yaml, section vllm)."""
    port: int = 0
    """Port of a server on this machine; 0: the first free one from 8000 on."""
    deadline_seconds: float = 900
    """Time for the server to come up and answer."""
    image_digest: str = ""
    """Digest of the packaged image: another one means another rollout."""
    image_reference: str = ""
    """Cluster: where the packaged adapter was pushed to, `repository@digest`."""
    serve_image: str = ""
    """Cluster: image that the servers run in."""
    template: dict[str, Any] | None = None
    """Cluster: pod of the user's own (KAITO `inference.template`), served as it is."""
    replicas: int = 1
    """Cluster: servers behind the Service."""
    max_replicas: int = 0
    """Cluster: servers at most, added while requests wait; 0: always as many as `replicas`."""
    prometheus: str = ""
    """Cluster: address of a Prometheus that KEDA asks how many requests wait; empty: the cluster's metrics API."""
    canary: int = 0
    """Cluster: percent of the requests that the new adapter gets beside the one in service; 0: it takes its place."""
    gateway: str = ""
    """Cluster: Gateway (`namespace/name`) that splits requests exactly; empty: the number of servers splits them."""
    hot_load: bool = True
    """Cluster: whether servers take other adapters while they run; if not, each adapter has servers of its own."""
    gpus: int = 1
    """Cluster: GPUs of each server."""
    gpu_resource: str = "nvidia.com/gpu"
    """Cluster: name by which GPUs are asked for."""
    node_labels: dict[str, str] = dataclasses.field(default_factory=dict)
    """Cluster: labels that the nodes must have (KAITO `resource.labelSelector`)."""
    instance_types: list[str] = dataclasses.field(default_factory=list)
    """Cluster: sizes of nodes, the first preferred; empty: any."""
    preferred_nodes: list[str] = dataclasses.field(default_factory=list)
    """Cluster: names of nodes to take before others (KAITO `resource.preferredNodes`)."""
    context_length: int = 0
    """Cluster: longest context that the GPUs hold, by the estimate; 0: the model's own."""
    models_claim: str = ""
    """Cluster: PersistentVolumeClaim with the base models; empty: each server fetches its own."""
    access_secret: str = ""
    """Cluster: Secret with key HF_TOKEN (KAITO `modelAccessSecret`)."""
    registry_secret: str = ""
    """Cluster: dockerconfigjson Secret of the registries that adapters are pulled from."""
    adapter_volumes: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """Cluster: JSON map of adapters to the Kubernetes VolumeSource that holds them."""
    service_account: str = ""
    """Cluster: account of the servers, where they need one to pull (workload identity)."""


@dataclass(frozen=True)
class Result:
    """Where it is served, and what it said."""

    endpoint: str
    """Root address of the OpenAI-compatible server."""
    answer: str
    """The first adapter's answer to the question (the base's, without adapters)."""
    base_answer: str
    """The base model's answer to the same question."""
    server: str
    """``vllm`` or ``transformers``."""
    agreement: str = ""
    """How the served adapter's answers compare with those of the evaluation."""
