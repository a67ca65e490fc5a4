"""Damaged site profiles, inference configurations and Workspaces are valid, or refused with file and field."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import fuzz
import pytest
import yaml
from mutations import mutate_bytes, mutate_json
from workspace_sample import GOOD

from workflows.load_plans import load_plans
from workflows.plan import site
from workflows.spec.load import load

SITE: dict[str, Any] = {
    "namespace": "argotune",
    "serviceAccount": "argotune",
    "storage": {"modelsClaim": "models"},
    "images": {"control": "r.example.com/control:1"},
    "prices": {"Standard_NC24ads_A100_v4": 3.5},
    "pods": {"all": {"env": {"HTTPS_PROXY": "http://proxy.example:3128"}, "tolerations": [{"key": "gpu"}]}},
    "nodes": {"nodeClass": "default"},
}
FLAGS: dict[str, Any] = {"vllm": {"max-model-len": 2048, "gpu-memory-utilization": 0.9, "enforce-eager": True}}
BOMB = "a: &a [x,x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)},*{chr(97 + n)}]\n" for n in range(22))
WORKSPACE = list(yaml.safe_load_all(GOOD))
SERVED = {
    "apiVersion": "kaito.sh/v1beta1",
    "kind": "Workspace",
    "metadata": {"name": "served"},
    "resource": {"instanceType": "Standard_NC24ads_A100_v4", "labelSelector": {"matchLabels": {"a": "b"}}},
    "inference": {"preset": {"name": "phi-4-mini-instruct"}, "config": "flags"},
}


def damaged(chance: random.Random, *documents: Any) -> bytes:
    if chance.random() < 0.01:
        return BOMB.encode()
    changed = [mutate_json(chance, document) if chance.random() < 0.7 else document for document in documents]
    try:
        content = yaml.safe_dump_all(changed, allow_unicode=True).encode("utf-8", "surrogatepass")
    except RecursionError:
        content = b"[" * 100_000
    return mutate_bytes(chance, content) if chance.random() < 0.5 else content


def served(chance: random.Random) -> bytes:
    flags = damaged(chance, FLAGS).decode("utf-8", "replace")
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "flags"}}
    return yaml.safe_dump_all([SERVED, {**config, "data": {"inference_config.yaml": flags}}]).encode()


def run(tmp_path: Path, kind: str, count: int) -> None:
    file = tmp_path / "file.yaml"
    create = {
        "site": lambda chance: damaged(chance, SITE),
        "workspace": lambda chance: damaged(chance, *WORKSPACE),
        "inference config": served,
    }[kind]

    def read(content: bytes) -> None:
        file.write_bytes(content)
        if kind == "site":
            site.load(str(file))
            site.prices(str(file))
        elif kind == "workspace":
            load_plans(str(file))
        else:
            load(str(file))

    fuzz.check(kind, read, create, count)


@pytest.mark.parametrize(
    ("kind", "count"),
    fuzz.cases(
        ("site", "workspace", "inference config"), lambda kind: fuzz.NORMAL if kind == "site" else fuzz.NORMAL // 3
    ),
)
def test_damaged_files_are_refused(tmp_path: Path, kind: str, count: int) -> None:
    run(tmp_path, kind, count)
