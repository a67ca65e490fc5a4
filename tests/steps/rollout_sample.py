"""A service ``helper`` on a cluster for the rollout tests: adapters, settings, and short waits."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from kubernetes_server import KubernetesServer

from steps.oci import reference
from steps.oci.oci_layout import build_image
from steps.oci.registry import push_image
from steps.rollout import rollout_cluster
from steps.rollout.settings import Result, Settings
from steps.serving import adapter_reloader

NAME = "helper"


def run_in_pod(cluster: KubernetesServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the rollout as in a pod of the cluster."""
    cluster.kubeconfig(folder / "kubeconfig", user="rollout")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")


def nap(seconds: float) -> None:
    time.sleep(min(seconds, 0.01))


def run(settings: Settings) -> Result:
    return rollout_cluster.rollout(settings, nap)


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the poll intervals of servers."""
    monkeypatch.setattr(adapter_reloader, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(adapter_reloader, "RETRY_SECONDS", 0.1)


def write_weights(folder: Path, rank: int = 8) -> None:
    """Write the weights of one LoRA layer."""
    import numpy
    from safetensors.numpy import save_file

    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes = {f"{layer}.lora_A.weight": (rank, 4), f"{layer}.lora_B.weight": (4, rank)}
    weights = {key: numpy.zeros(shape, numpy.float32) for key, shape in shapes.items()}
    save_file(weights, folder / "adapter_model.safetensors")


def push_adapters(registry: str, folder: Path) -> dict[str, str]:
    """Return references by digest of three adapters; the third has a larger rank."""
    references = {}
    for name, rank in (("one", 8), ("two", 8), ("wide", 64)):
        adapter = folder / name / "adapter"
        adapter.mkdir(parents=True)
        (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "note": name}))
        write_weights(adapter, rank)
        target = reference.parse(f"{registry}/team/{name}:1")
        build_image(adapter, adapter.parent / "layout", "1", {})
        references[name] = f"{target.name}@{push_image(adapter.parent / 'layout', target)}"
    return references


def settings_of(work: Path, images: dict[str, str], image: str = "one", **changes: Any) -> Settings:
    """Return settings that serve an adapter; arguments replace them."""
    values: dict[str, Any] = {
        "work": work, "name": NAME, "preset": "base", "model": "tests/base",
        "adapters": [{"name": "tuned", "image": images[image]}], "serve_image": "serve:1", "replicas": 2,
        "deadline_seconds": 120, "question": "What?",
    }  # fmt: skip
    return Settings(**values | changes)


def version(images: dict[str, str], name: str) -> str:
    """Return the model name in an adapter's answers."""
    return "tuned-" + images[name].rpartition(":")[2][:12]
