"""KAITO's ``training_config.yaml``: six sections, each key honoured or refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from steps.tune import lora_init, unsupported_arguments
from workflows.spec.findings import Findings, short, unknown
from workflows.spec.source import join
from workflows.spec.training_keys import SECTIONS, Accepted, Only, Refused, Warned

KEY = "training_config.yaml"
"""The key of the ConfigMap."""
ROOT = "training_config"
"""Its only key inside, and the beginning of the field paths."""
DEFAULTS = {"target_modules": "all-linear", "report_to": "none"}
"""Words for what is done without them."""
_FIELDS = {
    "ModelConfig": "model",
    "QuantizationConfig": "quantization",
    "LoraConfig": "lora",
    "TrainingArguments": "arguments",
    "DataCollator": "collator",
    "DatasetConfig": "dataset",
}


@dataclass(frozen=True)
class TrainingConfig:
    """What the ConfigMap sets. Only keys that have an effect are held, with their values in the right type."""

    config_map: str = ""
    """Name of the ConfigMap; empty when the Workspace names none."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """``ModelConfig``."""
    quantization: Mapping[str, Any] = field(default_factory=dict)
    """``QuantizationConfig``: keys of ``transformers.BitsAndBytesConfig``."""
    lora: Mapping[str, Any] = field(default_factory=dict)
    """``LoraConfig``: keys of ``peft.LoraConfig``."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """``TrainingArguments``: keys of ``trl.SFTConfig``."""
    collator: Mapping[str, Any] = field(default_factory=dict)
    """``DataCollator``; no key of it has an effect."""
    dataset: Mapping[str, Any] = field(default_factory=dict)
    """``DatasetConfig``."""

    def sections(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Each section by its name in the file."""
        for section, attribute in _FIELDS.items():
            yield section, getattr(self, attribute)


def parse(content: Any, config_map: str, found: Findings) -> TrainingConfig:
    """Read the content of ``training_config.yaml``; what is wrong goes to ``found``."""
    if not isinstance(content, dict) or ROOT not in content:
        found.wrong(ROOT, f"missing key {ROOT!r} in {KEY}", f"write {ROOT}: above the sections")
        return TrainingConfig(config_map)
    for name in content:
        if name != ROOT:
            found.wrong(ROOT, f"unknown key {name} beside training_config", "move it into a section, or leave it out")
    sections = content[ROOT]
    if not isinstance(sections, dict):
        found.wrong(ROOT, "Expected 'training_config' key to contain a map", f"sections: {', '.join(SECTIONS)}")
        return TrainingConfig(config_map)
    return TrainingConfig(config_map, **_sections(sections, found))


def check_method(training: TrainingConfig, quantized: bool, found: Findings) -> None:
    """Note where the quantization contradicts ``tuning.method`` (KAITO's rules and words)."""
    path = join(ROOT, "QuantizationConfig")
    where = f"in ConfigMap '{training.config_map}'" if training.config_map else "in QuantizationConfig"
    four, eight = training.quantization.get("load_in_4bit"), training.quantization.get("load_in_8bit")
    if four and eight:
        what = f"Cannot set both 'load_in_4bit' and 'load_in_8bit' to true {where}"
        found.wrong(path, what, "keep load_in_4bit")
    elif not quantized and (four or eight):
        what = f"For method 'lora', 'load_in_4bit' or 'load_in_8bit' {where} must not be true"
        found.wrong(path, what, "write tuning.method: qlora, or leave the section out")
    elif quantized and not four and not eight and (four, eight) != (None, None):
        what = f"For method 'qlora', either 'load_in_4bit' or 'load_in_8bit' must be true {where}"
        found.wrong(path, what, "write load_in_4bit: true, or tuning.method: lora")
    elif not quantized and (idle := [key for key in training.quantization if not key.startswith("load_in_")]):
        found.warn(path, f"no effect with method lora: {', '.join(idle)}", "write tuning.method: qlora to quantize")


def _sections(sections: Mapping[Any, Any], found: Findings) -> dict[str, Any]:
    read = {}
    for section, values in sections.items():
        path = join(ROOT, str(section))
        if not isinstance(section, str):
            found.wrong(path, "Section key must be a string", f"sections: {', '.join(SECTIONS)}")
        elif section not in SECTIONS:
            found.wrong(path, f"Unrecognized section: {section}", unknown(section, SECTIONS))
        elif not isinstance(values or {}, dict):
            found.wrong(path, f"must be a map, not {short(values)}")
        else:
            read[_FIELDS[section]] = _keys(section, values or {}, path, found)
    return read


def _keys(section: str, values: Mapping[Any, Any], path: str, found: Findings) -> dict[str, Any]:
    read = {}
    for key, value in values.items():
        if value is None:  # Nothing written: the default.
            continue
        rule = SECTIONS[section].get(key)
        place = join(path, str(key))
        if rule is None:
            found.wrong(place, "unknown key", _elsewhere(str(key), section) or unknown(str(key), SECTIONS[section]))
            continue
        ok, value = _checked(rule, value, place, found)
        if ok and key == "save_strategy" and value == "no":
            found.warn(place, "checkpoints are kept all the same, so that the run can be resumed")
        elif ok and DEFAULTS.get(key) != value:
            read[key] = value
    if read.get("layers_pattern") and "layers_to_transform" not in read and section == "LoraConfig":
        found.wrong(
            join(path, "layers_pattern"), "has no effect without layers_to_transform", "add layers_to_transform"
        )
    refused = {
        "TrainingArguments": unsupported_arguments.unsupported_keys,
        "LoraConfig": lora_init.unsupported_keys,
    }.get(section)
    for key, why in refused(read).items() if refused else ():
        found.wrong(join(path, key), why)
    return read


def _checked(rule: Any, value: Any, path: str, found: Findings) -> tuple[bool, Any]:
    """Whether a value is honoured, and what it is."""
    if isinstance(rule, Refused):
        if unsupported_arguments.is_off(value):
            return False, None
        found.wrong(path, f"not honoured: {rule.why}", rule.fix)
        return False, None
    if isinstance(rule, Only):
        if not any(type(value) is type(allowed) and value == allowed for allowed in rule.values):
            allowed = " or ".join(short(allowed) for allowed in rule.values)
            found.wrong(path, f"{short(value)} is not honoured: {rule.why}", rule.fix or f"write {allowed}")
        return False, None
    kind = rule.kind if isinstance(rule, Accepted | Warned) else rule
    try:
        value = _adapter(kind).validate_python(value)
    except ValidationError as error:
        found.wrong(path, f"{_reason(error)}, not {short(value)}")
        return False, None
    if isinstance(rule, Warned) and value != rule.harmless:
        found.warn(path, rule.why)
    return not isinstance(rule, Accepted | Warned), value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _reason(error: ValidationError) -> str:
    """Why a value has not the type; where it may have several types, each of them."""
    reasons = dict.fromkeys(details["msg"].removeprefix("Value error, ") for details in error.errors())
    return " or ".join(reason.replace("Input should", "must", 1) for reason in reasons)


def _elsewhere(key: str, section: str) -> str:
    homes = [name for name, keys in SECTIONS.items() if name != section and key in keys]
    return f"it belongs to {homes[0]}" if homes else ""
