"""``argotune presets add`` derives a preset from damaged answers of the hub, or refuses them with a fix."""

from __future__ import annotations

import json
import random
from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import fuzz
import pytest
from mutations import mutate_bytes, mutate_document
from scripted_server import ScriptedServer, response

from steps.models import hub_requests
from workflows.commands import presets
from workflows.errors import ArgotuneError

NAME = "Qwen/Qwen3-8B"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIGS = [
    json.loads(file.read_text()) for file in sorted((Path(__file__).parents[2] / "presets/configs").glob("*.json"))
]
"""Configurations of all architectures."""
FILES: dict[str, dict[str, Any]] = {
    "config.json": CONFIGS[0],
    "tokenizer_config.json": {"chat_template": "{{ messages }}", "model_max_length": 40960},
    "generation_config.json": {"eos_token_id": [151645, 151643]},
    "model.safetensors.index.json": {"metadata": {"total_size": 16381470720}, "weight_map": {"a": "b.safetensors"}},
}
INFO = {
    "sha": COMMIT,
    "gated": "auto",
    "cardData": {"license": "other", "license_name": "qwen"},
    "tags": ["license:apache-2.0"],
    "safetensors": {"parameters": {"BF16": 8190735360}, "total": 8190735360},
    "siblings": [{"rfilename": name, "size": 10} for name in (*FILES, "model-00001-of-00001.safetensors")],
}
DOCUMENTS = {"model": INFO, **FILES}


class Hub:
    def __init__(self, kind: str) -> None:
        self.kind, self.damaged = kind, b""

    def respond(self, method: str, target: str, headers: Mapping[str, str]) -> bytes:
        kind = target.rpartition("/")[2].partition("?")[0] if "/resolve/" in target else "model"
        return response(self.damaged if kind == self.kind else json.dumps(DOCUMENTS[kind]).encode())


def damage(chance: random.Random, kind: str) -> bytes:
    """Change the values of a document, mostly, or its bytes."""
    document = chance.choice(CONFIGS) if kind == "config.json" else DOCUMENTS[kind]
    if chance.random() < 0.8:
        return mutate_document(chance, document)
    return mutate_bytes(chance, json.dumps(document).encode())


@pytest.mark.parametrize(("kind", "count"), fuzz.cases(DOCUMENTS, fuzz.NORMAL // len(DOCUMENTS), parts=len(DOCUMENTS)))
def test_damaged_answers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, count: int) -> None:
    script = Hub(kind)
    arguments = Namespace(action="add", name=NAME, output=str(tmp_path / "preset.yaml"))

    def read(damaged: bytes) -> None:
        script.damaged = damaged
        presets.run(arguments)

    with ScriptedServer(script.respond) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        fuzz.check(
            f"presets add {kind}", read, partial(damage, kind=kind), count, refusals=(ArgotuneError,), min_refused=0
        )


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_an_endless_answer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    script = Hub(kind)
    script.damaged = b" " * 100_001
    monkeypatch.setattr(hub_requests, "MAX_BODY_BYTES", 100_000)
    with ScriptedServer(script.respond) as server, pytest.raises(ArgotuneError, match="more than 100000 bytes"):
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        presets.run(Namespace(action="add", name=NAME, output=str(tmp_path / "preset.yaml")))
