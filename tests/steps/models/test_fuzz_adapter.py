"""Damaged files of an adapter or a base model are problems of the adapter, each with its reason."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz
import pytest
from mutations import mutate_bytes, mutate_document

from steps.models import adapter_compat, model_hub
from steps.models.adapter import CONFIG, WEIGHTS
from steps.serving import request_limits

LORA = {
    "peft_type": "LORA",
    "base_model_name_or_path": "org/base",
    "r": 2,
    "rank_pattern": {"q_proj": 2},
    "alpha_pattern": {},
    "target_modules": ["q_proj", "v_proj"],
    "layers_to_transform": None,
    "bias": "none",
    "use_dora": False,
}
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
TENSORS: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    f"{LAYER}.lora_A.weight": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
    f"{LAYER}.lora_B.weight": {"dtype": "BF16", "shape": [4, 2], "data_offsets": [32, 48]},
}
BASE = {"model.layers.0.self_attn.q_proj.weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}
MODEL_CONFIG = {"max_position_embeddings": 2048, "rope_scaling": {"factor": 2.0}, "text_config": None}
TOKENIZER = {"model": {"vocab": {"a": 0, "bc": 1}}, "added_tokens": [{"content": "<s>"}]}
INDEX = {"metadata": {"total_size": 1}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}


def safetensors(header: bytes, data: bytes = bytes(64)) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def damaged_weights(chance: random.Random, header: Any) -> bytes:
    if chance.random() < 0.3:
        return mutate_bytes(chance, safetensors(json.dumps(header).encode()))
    return safetensors(mutate_document(chance, header))


def write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder


def run(tmp_path: Path, kind: str, count: int) -> None:
    adapter, base = tmp_path / "adapter", tmp_path / "base"
    for folder in (adapter, base):
        folder.mkdir()
    write(adapter, CONFIG, json.dumps(LORA).encode())
    write(adapter, WEIGHTS, safetensors(json.dumps(TENSORS).encode()))
    write(base, "model.safetensors", safetensors(json.dumps(BASE).encode()))

    def read_adapter(*_: Any) -> None:
        served = adapter_compat.read("a", adapter)
        assert served.rank >= 0
        for server in ("vllm", "transformers"):
            for problem in adapter_compat.problems(served, "org/base", base, server, 16):
                assert problem.startswith("adapter a: ") and len(problem) < fuzz.MAX_MESSAGE

    readers: dict[str, tuple[Callable[[bytes], Any], Callable[[random.Random], bytes]]] = {
        "config": (lambda c: read_adapter(write(adapter, CONFIG, c)), lambda c: mutate_document(c, LORA)),
        "weights": (lambda c: read_adapter(write(adapter, WEIGHTS, c)), lambda c: damaged_weights(c, TENSORS)),
        "base": (
            lambda c: read_adapter(write(base, "model.safetensors", c)),
            lambda c: damaged_weights(c, BASE),
        ),
        "model config": (
            lambda c: request_limits.read_context(write(base, "config.json", c)),
            lambda c: mutate_document(c, MODEL_CONFIG),
        ),
        "tokenizer": (
            lambda c: request_limits._longest_token(write(base, "tokenizer.json", c)),
            lambda c: mutate_document(c, TOKENIZER),
        ),
        "weights index": (
            lambda c: model_hub._check_complete(
                write(base, "model.safetensors.index.json", c), "org/base", consolidated=False
            ),
            lambda c: mutate_document(c, INDEX),
        ),
    }
    read, create = readers[kind]
    refusals = (ValueError,) if kind in ("config", "weights", "base") else (model_hub.HubUnreachable,)
    fuzz.check(f"adapter {kind}", read, create, count, refusals=refusals, min_refused=0)


@pytest.mark.parametrize(
    ("kind", "count"), fuzz.cases(("config", "weights", "base", "model config", "tokenizer", "weights index"))
)
def test_damaged_files_are_problems(tmp_path: Path, kind: str, count: int) -> None:
    run(tmp_path, kind, count)
