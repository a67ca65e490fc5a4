"""KAITO's ``inference_config.yaml``: flags of vLLM."""

from __future__ import annotations

import re
from typing import Any

import presets
from presets import Model
from steps.runtime.validation_messages import format_value
from steps.serving import vllm_flags
from workflows.field_path import join
from workflows.spec import vllm_flag_rules
from workflows.spec.findings import Findings, unknown

KEY = "inference_config.yaml"
"""The key of the ConfigMap."""
ROOT = "inference_config"
"""Prefix of the field paths."""
CHAT_TEMPLATE = "chat-template"
"""Flag whose value can be Jinja text."""
# KAITO's keys next to ``vllm``, set by its template, for features that do not exist here.
WITHOUT_EFFECT = {
    "kv_cache_cpu_memory_utilization": "the KV cache is not offloaded to CPU memory",
    "max_probe_steps": "vLLM determines the longest context itself",
}
# Flags set by the rollout, with the fix.
RESERVED = {
    "model": "set inference.preset.name",
    "served-model-name": "the model is served under its preset's name",
    "lora-modules": "list them under inference.adapters",
    "host": "remove it",
    "port": "set pipeline.rollout.port for local runs; a cluster's Service has KAITO's ports",
    "uds": "remove it",
    "grpc": "remove it: clients use HTTP",
    "grpc-port": "remove it: clients use HTTP",
    "headless": "remove it",
    "config": "list its flags under vllm",
    "middleware": "remove it",
    "api-key": "secrets are not allowed in a ConfigMap",
    "hf-token": "set inference.preset.presetOptions.modelAccessSecret",
}
SINGLE = ("api-server-count", vllm_flags.DATA_PARALLEL)
"""Flags that start several API servers, for which vLLM rejects adapter changes at run time."""
TRUST = "trust-remote-code"
"""Flag for models whose code is in their repository."""
_FLAG = re.compile(r"[a-zA-Z][a-zA-Z0-9._-]*")


def parse(content: Any, model: Model | None, findings: Findings) -> dict[str, Any]:
    """Parse ``inference_config.yaml`` into ``{"vllm": {flag: value}}``; errors go to ``findings``."""
    if not isinstance(content or {}, dict):
        findings.error(ROOT, f"must be a mapping, not {format_value(content)}", "write vllm: and flags below it")
        return {}
    flags = {}
    for key, value in (content or {}).items():
        path = join(ROOT, str(key))
        if key in WITHOUT_EFFECT:
            findings.warn(path, f"has no effect: {WITHOUT_EFFECT[key]}", "remove it")
        elif key != "vllm":
            findings.error(path, "unknown key", unknown(str(key), ("vllm", *WITHOUT_EFFECT)))
        elif not isinstance(value or {}, dict):
            findings.error(
                path, f"must be a mapping of flags, not {format_value(value)}", "write one flag: value a line"
            )
        else:
            flags = _flags(value or {}, path, findings)
    _check_length(flags, model, findings)
    return {"vllm": flags} if flags else {}


def _flags(values: dict[Any, Any], path: str, findings: Findings) -> dict[str, Any]:
    flags: dict[str, Any] = {}
    names = [vllm_flags.normalize(str(flag)) for flag in values]
    flag_like = vllm_flags.flag_like_values({str(flag): value for flag, value in values.items()})
    for flag, value in values.items():
        place, name = join(path, str(flag)), vllm_flags.normalize(str(flag))
        reserved = vllm_flags.reserved_name(name)
        if not isinstance(flag, str) or not _FLAG.fullmatch(flag):
            findings.error(place, f"{flag!r} is not a vLLM flag", "write the flag without leading dashes")
        elif name in flags:
            findings.error(place, "is a duplicate: written with '-' and with '_'", "remove one of them")
        elif reserved == TRUST and value is False:
            flags[TRUST] = value  # vLLM's default
        elif reserved == TRUST:
            findings.error(place, f"is not supported: {vllm_flags.NO_CODE}", "choose a model without custom code")
        elif reserved in SINGLE:
            what = f"cannot be set: {vllm_flags.ONE_API_SERVER}"
            findings.error(place, what, "remove it, and set pipeline.rollout.replicas for more servers")
        elif reserved:
            abbreviates = "" if name == reserved else f", as {reserved}"
            findings.error(place, f"is set by argotune{abbreviates}", RESERVED[reserved])
        elif flag in flag_like:
            findings.error(place, f"{format_value(value)} begins with a dash, as a flag does", "write a value")
        elif isinstance(value, str) and value.startswith(presets.CHAT_TEMPLATES) and name == CHAT_TEMPLATE:
            try:
                flags[name] = presets.chat_template(value)
            except LookupError as unknown_template:
                what = f"{format_value(value)} is not a chat template of KAITO's image"
                findings.error(place, what, str(unknown_template))
        elif isinstance(value, str) and value.startswith("/workspace/"):
            findings.error(place, f"{format_value(value)} is a path in KAITO's image", "remove it")
        elif name in vllm_flag_rules.REMOVED:
            findings.warn(place, f"has no effect: {vllm_flag_rules.REMOVED[name]}", "remove it")
        elif error := vllm_flag_rules.find_error(name, value, names):
            findings.error(place, *error)
        else:
            flags[name] = vllm_flag_rules.convert(name, value)
    return flags


def _check_length(flags: dict[str, Any], model: Model | None, findings: Findings) -> None:
    length = flags.get("max-model-len")
    path = join(ROOT, "vllm.max-model-len")
    if length is None or length == "auto":
        return
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        findings.error(path, f"max-model-len must be an integer: {format_value(length)}", "write a number of tokens")
    elif model and length > model.context_length:
        limit = model.context_length
        what = f"max-model-len {length} exceeds model's maximum supported context window {limit} (ModelTokenLimit)"
        findings.error(path, what, f"write at most {limit}")
