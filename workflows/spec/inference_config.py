"""KAITO's ``inference_config.yaml``: flags of vLLM."""

from __future__ import annotations

import re
from typing import Any

from presets import Model
from workflows.spec.findings import Findings, short, unknown
from workflows.spec.source import join

KEY = "inference_config.yaml"
"""The key of the ConfigMap."""
ROOT = "inference_config"
"""The beginning of the field paths."""
CHAT_TEMPLATE = "chat-template"
"""The flag whose value may be Jinja text itself."""
# KAITO's own keys beside ``vllm``: its template sets them, and they tune parts that are not here.
WITHOUT_EFFECT = {
    "kv_cache_cpu_memory_utilization": "the key-value cache is not offloaded to CPU memory",
    "max_probe_steps": "vLLM itself finds the longest context that fits",
}
# What the rollout decides. The value says what to do instead.
RESERVED = {
    "model": "set inference.preset.name",
    "served-model-name": "the model is served under its preset's name",
    "lora-modules": "list them under inference.adapters",
    "host": "leave it out",
    "port": "set pipeline.rollout.port for one machine; a cluster's Service has KAITO's ports",
    "middleware": "leave it out",
    "api-key": "a secret must not stand in a ConfigMap",
    "hf-token": "name a Secret in inference.preset.presetOptions.modelAccessSecret",
}
_FLAG = re.compile(r"[a-zA-Z][a-zA-Z0-9._-]*")


def parse(content: Any, model: Model | None, found: Findings) -> dict[str, Any]:
    """Read the content of ``inference_config.yaml`` into ``{"vllm": {flag: value}}``; complaints go to ``found``."""
    if not isinstance(content or {}, dict):
        found.wrong(ROOT, f"must be a map, not {short(content)}", "write vllm: and flags below it")
        return {}
    flags = {}
    for key, value in (content or {}).items():
        path = join(ROOT, str(key))
        if key in WITHOUT_EFFECT:
            found.warn(path, f"no effect: {WITHOUT_EFFECT[key]}")
        elif key != "vllm":
            found.wrong(path, "unknown key", unknown(str(key), ("vllm", *WITHOUT_EFFECT)))
        elif not isinstance(value or {}, dict):
            found.wrong(path, f"must be a map of flags, not {short(value)}", "write one flag: value a line")
        else:
            flags = _flags(value or {}, path, found)
    _check_length(flags, model, found)
    return {"vllm": flags} if flags else {}


def _flags(values: dict[Any, Any], path: str, found: Findings) -> dict[str, Any]:
    flags: dict[str, Any] = {}
    for flag, value in values.items():
        place = join(path, str(flag))
        head, dot, rest = str(flag).partition(".")  # What follows a dot is a key of a JSON flag, and keeps its form.
        name = head.replace("_", "-") + dot + rest
        if not isinstance(flag, str) or not _FLAG.fullmatch(flag):
            found.wrong(place, f"{flag!r} is no flag of vLLM", "write the flag without dashes in front")
        elif name in flags:
            found.wrong(place, "stands twice, once with '-' and once with '_'", "keep one of them")
        elif name in RESERVED:
            found.wrong(place, "is set by argotune", RESERVED[name])
        elif isinstance(value, str) and value.startswith("/workspace/"):
            fix = "write the template itself, or leave it out" if name == CHAT_TEMPLATE else "leave it out"
            found.wrong(place, f"{short(value)} is a file of KAITO's image", fix)
        else:
            flags[name] = value
    return flags


def _check_length(flags: dict[str, Any], model: Model | None, found: Findings) -> None:
    length = flags.get("max-model-len")
    path = join(ROOT, "vllm.max-model-len")
    if length is None or length == "auto":
        return
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        found.wrong(path, f"max-model-len must be an integer: {short(length)}", "write a number of tokens")
    elif model and length > model.context_length:
        limit = model.context_length
        what = f"max-model-len {length} exceeds model's maximum supported context window {limit} (ModelTokenLimit)"
        found.wrong(path, what, f"write at most {limit}")
