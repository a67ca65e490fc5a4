"""Check of a copied model: complete files of weights, a tokenizer, and the architecture of its preset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import presets
from presets.derive import HubMetadata, NotAModel, derive
from steps.models import adapter_weights
from steps.models.model_hub import indexed_files
from steps.runtime.errors import BadInput
from steps.runtime.json_text import parse_json

INDEX = "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
COMPARED = ("architecture", "hidden_size", "layers", "heads", "kv_heads", "intermediate_size")
"""Facts by which memory and layers are planned; a longer vocabulary is common after a fine-tuning."""


def check(folder: Path, model: str, facts: presets.Model | None, *, whole: bool) -> None:
    """Check the files of a model against each other and the facts of its preset.

    Raises:
        BadInput: with all problems.
    """
    problems = [*_weight_problems(folder)] if whole else []
    if not any((folder / name).is_file() for name in TOKENIZERS):
        problems.append(f"no tokenizer ({', '.join(TOKENIZERS)})")
    fix = "copy all files of the model, as save_pretrained or the hub has them"
    try:
        found = derive(read_metadata(folder, model))
    except NotAModel as error:
        raise BadInput(f"{model}: {error}", "use a language model in transformers' format") from None
    if "trust_remote_code" in found.cannot_tune:
        problems.append(found.cannot_tune)
    if facts and (differences := list(_differences(found, facts))):
        problems.append(f"not the model of preset {facts.name}: {', '.join(differences)}")
        fix = "set preset.name to the preset of these weights; argotune presets add ORG/NAME derives one from the hub"
    if problems:
        raise BadInput(f"{model}: {'; '.join(problems)}", fix)


def read_metadata(folder: Path, model: str, revision: str = "main") -> HubMetadata:
    """Return what the hub would report about the files of a directory.

    Raises:
        BadInput: a file is not a JSON object.
    """
    sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    return HubMetadata(
        repository=model,
        commit=revision,
        config=_read(folder, "config.json"),
        tokenizer_config=_read(folder, "tokenizer_config.json"),
        generation_config=_read(folder, "generation_config.json"),
        files=sizes,
        index=_read(folder, INDEX),
    )


def _read(folder: Path, name: str) -> Mapping[str, Any]:
    file = folder / name
    if not file.is_file():
        return {}
    try:
        content = parse_json(file.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise BadInput(f"{name} is not a JSON object", "copy the file again")
    return content


def _weight_problems(folder: Path) -> Iterator[str]:
    """Yield missing and truncated files of weights."""
    existing = {file.name for file in folder.glob("*.safetensors")}
    index = folder / INDEX
    listed = indexed_files(index, folder.name) if index.is_file() else set()
    if not existing:
        yield "no weights in safetensors format"
    if missing := sorted(listed - existing):
        yield f"missing {', '.join(missing[:5])}"
    for name in sorted(existing):
        try:
            adapter_weights.read_header(folder / name)
        except ValueError as error:
            yield str(error)


def _differences(found: presets.Model, facts: presets.Model) -> Iterator[str]:
    for field in COMPARED:
        ours, theirs = getattr(found, field), getattr(facts, field)
        if ours != theirs:
            yield f"{field} is {ours} instead of {theirs}"
