"""A model served by a rollout: clients in separate pods send requests through its Service."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy
from real_cluster import Cluster
from safetensors.numpy import save_file
from small_pods import small_pod

from steps.oci import reference
from steps.oci.oci_layout import build_image
from steps.oci.registry import push_image

RANK, HIDDEN, LAYERS = 4, 576, 30
"""Shape of the adapters, and of SmolLM2-135M."""
CLIENT = """
import json, sys, time, urllib.request
address, model, count, names = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}).encode()

def answer():
    request = urllib.request.Request(f"{address}/v1/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)["model"]

def listed():
    with urllib.request.urlopen(f"{address}/v1/models", timeout=300) as response:
        return next(card["root"] for card in json.load(response)["data"] if card["id"] == model)

while count:
    count -= 1
    time.sleep(0.5 if count < 0 else 0)  # until it is deleted: leaves the processors to the servers
    try:
        print("answered", listed() if names else answer(), flush=True)
    except Exception as error:
        print("failed", repr(error), flush=True)
"""
"""Sends requests to an adapter and prints which version answered; with one more word, lists the models."""


def push_adapter(registry: str, folder: Path, name: str, *, seed: int = 0, hidden: int = HIDDEN) -> str:
    """Push the image of a small random adapter of the model and return its reference; ``hidden``: its input size."""
    adapter = folder / name / "adapter"
    adapter.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    random = numpy.random.default_rng(seed)
    weights = {}
    for layer in range(LAYERS):
        module = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{module}.lora_A.weight"] = random.normal(0, 0.02, (RANK, hidden)).astype(numpy.float32)
        weights[f"{module}.lora_B.weight"] = random.normal(0, 0.02, (HIDDEN, RANK)).astype(numpy.float32)
    save_file(weights, adapter / "adapter_model.safetensors")
    layout = folder / name / "layout"
    build_image(adapter, layout, "1", {})
    target = reference.parse(f"{registry}/team/{name}:1")
    return f"{target.name}@{push_image(layout, target)}"


def version(image: str) -> str:
    """Return the name that answers of an adapter ``tuned`` contain: it has the digest of its image."""
    return f"tuned-{image.rpartition(':')[2][:12]}"


@dataclass(frozen=True)
class Client:
    """A pod that sends one request after the other, each on a new connection."""

    cluster: Cluster
    service: str
    count: int = -1
    """Number of requests; -1: until it is deleted."""
    model: str = "tuned"
    lists: bool = False
    """True: list the models, which takes the server less time than an answer."""
    pod: str = field(default_factory=lambda: f"client-{uuid.uuid4().hex[:6]}")

    def start(self) -> Client:
        """Create the pod."""
        address = f"http://{self.service}.{self.cluster.namespace}.svc"
        words = ["lists"] if self.lists else []
        self.cluster.apply(small_pod(self.pod, ["python", "-c", CLIENT, address, self.model, str(self.count), *words]))
        return self

    def finish(self) -> Counter[str]:
        """Return the number of answers by model once all requests are answered; fail if one was not."""
        self.cluster.wait(f"pod/{self.pod}", "jsonpath={.status.phase}=Succeeded", seconds=600)
        return self.answers()

    def answers(self) -> Counter[str]:
        """Return the number of answers so far by model; fail if a request failed."""
        lines = [line.split(" ", 1) for line in self.cluster.kubectl("logs", self.pod).splitlines()]
        failed = [text for kind, text in lines if kind != "answered"]
        assert not failed, f"{len(failed)} of {len(lines)} requests failed: {failed[:5]}"
        return Counter(model for _, model in lines)

    def delete(self) -> None:
        """Delete the pod."""
        self.cluster.kubectl("delete", "pod", self.pod, "--grace-period=0", "--force")
