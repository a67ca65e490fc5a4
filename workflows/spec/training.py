"""KAITO's ``training_config.yaml``: six sections, each key supported or rejected by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from steps.runtime import validation_messages
from steps.runtime.validation_messages import format_value
from steps.tune import lora_init, unsupported_arguments
from workflows.field_path import join
from workflows.spec import chat_template
from workflows.spec.findings import Findings, unknown
from workflows.spec.key_rules import FixedValue, Ignored, IgnoredWithWarning, Unsupported, as_boolean
from workflows.spec.training_keys import SECTIONS

KEY = "training_config.yaml"
"""The key of the ConfigMap."""
ROOT = "training_config"
"""Top-level key, and prefix of the field paths."""
DEFAULTS = {"target_modules": "all-linear", "report_to": "none"}
"""Values that equal the default behavior."""
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
    """Supported keys of the ConfigMap, with typed values; FixedValue keys are included if they have an effect."""

    config_map: str = ""
    """Name of the ConfigMap; "" if the Workspace has none."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """``ModelConfig``."""
    quantization: Mapping[str, Any] = field(default_factory=dict)
    """``QuantizationConfig``: keys of ``transformers.BitsAndBytesConfig``."""
    lora: Mapping[str, Any] = field(default_factory=dict)
    """``LoraConfig``: keys of ``peft.LoraConfig``."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """``TrainingArguments``: keys of ``trl.SFTConfig``."""
    collator: Mapping[str, Any] = field(default_factory=dict)
    """``DataCollator``; its keys have no effect."""
    dataset: Mapping[str, Any] = field(default_factory=dict)
    """``DatasetConfig``."""

    def sections(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield each section with its name in the file."""
        for section, attribute in _FIELDS.items():
            yield section, getattr(self, attribute)


def parse(content: Any, config_map: str, findings: Findings) -> TrainingConfig:
    """Parse ``training_config.yaml``; errors go to ``findings``."""
    if not isinstance(content, dict) or ROOT not in content:
        findings.error(ROOT, f"missing key {ROOT!r} in {KEY}", f"write {ROOT}: above the sections")
        return TrainingConfig(config_map)
    for name in content:
        if name != ROOT:
            findings.error(ROOT, f"unknown key {name} next to training_config", "move it into a section, or remove it")
    sections = content[ROOT]
    if not isinstance(sections, dict):
        findings.error(ROOT, "Expected 'training_config' key to contain a map", f"sections: {', '.join(SECTIONS)}")
        return TrainingConfig(config_map)
    config = TrainingConfig(config_map, **_sections(sections, findings))
    template = config.model.get("chat_template")
    if template and (error := chat_template.find_error(template)):
        findings.error(join(ROOT, "ModelConfig.chat_template"), *error)
    return config


def check_method(training: TrainingConfig, quantized: bool, findings: Findings) -> None:
    """Report a quantization that contradicts ``tuning.method`` (KAITO's rules and messages)."""
    path = join(ROOT, "QuantizationConfig")
    where = f"in ConfigMap '{training.config_map}'" if training.config_map else "in QuantizationConfig"
    four, eight = training.quantization.get("load_in_4bit"), training.quantization.get("load_in_8bit")
    if four and eight:
        what = f"Cannot set both 'load_in_4bit' and 'load_in_8bit' to true {where}"
        findings.error(path, what, "remove load_in_8bit")
    elif not quantized and (four or eight):
        what = f"For method 'lora', 'load_in_4bit' or 'load_in_8bit' {where} must not be true"
        findings.error(path, what, "write tuning.method: qlora, or remove the section")
    elif quantized and not four and not eight and (four, eight) != (None, None):
        what = f"For method 'qlora', either 'load_in_4bit' or 'load_in_8bit' must be true {where}"
        findings.error(path, what, "write load_in_4bit: true, or tuning.method: lora")
    elif not quantized and (idle := [key for key in training.quantization if not key.startswith("load_in_")]):
        findings.warn(path, f"no effect with method lora: {', '.join(idle)}", "write tuning.method: qlora to quantize")


def _sections(sections: Mapping[Any, Any], findings: Findings) -> dict[str, Any]:
    read = {}
    for section, values in sections.items():
        path = join(ROOT, str(section))
        if not isinstance(section, str):
            findings.error(path, "Section key must be a string", f"sections: {', '.join(SECTIONS)}")
        elif section not in SECTIONS:
            findings.error(path, f"Unrecognized section: {section}", unknown(section, SECTIONS))
        elif not isinstance(values or {}, dict):
            findings.error(path, f"must be a mapping, not {format_value(values)}", "write one key: value a line")
        else:
            read[_FIELDS[section]] = _keys(section, values or {}, path, findings)
    return read


def _keys(section: str, values: Mapping[Any, Any], path: str, findings: Findings) -> dict[str, Any]:
    read = {}
    for key, value in values.items():
        if value is None:  # null means the default
            continue
        rule = SECTIONS[section].get(key)
        place = join(path, str(key))
        if rule is None:
            findings.error(place, "unknown key", _elsewhere(str(key), section) or unknown(str(key), SECTIONS[section]))
            continue
        ok, value = _checked(rule, value, place, findings)
        if ok and key == "save_strategy" and value == "no":
            findings.warn(place, "checkpoints are written anyway, because the run must be resumable", "remove it")
        elif ok and DEFAULTS.get(key) != value:
            read[key] = value
    if read.get("layers_pattern") and "layers_to_transform" not in read and section == "LoraConfig":
        findings.error(
            join(path, "layers_pattern"), "has no effect without layers_to_transform", "add layers_to_transform"
        )
    refused = {
        "TrainingArguments": unsupported_arguments.unsupported_keys,
        "LoraConfig": lora_init.unsupported_keys,
    }.get(section)
    for key, why in refused(read).items() if refused else ():
        findings.error(join(path, key), why, f"change or remove {key}")
    return read


def _checked(rule: Any, value: Any, path: str, findings: Findings) -> tuple[bool, Any]:
    """Return (True, converted value) if a value is supported, otherwise (False, ...)."""
    if isinstance(rule, Unsupported):
        if unsupported_arguments.is_off(as_boolean(value)):
            return False, None
        findings.error(path, f"not supported: {rule.why}", rule.fix)
        return False, None
    if isinstance(rule, FixedValue):
        value = as_boolean(value) if any(isinstance(allowed, bool) for allowed in rule.values) else value
        if not any(type(value) is type(allowed) and value == allowed for allowed in rule.values):
            allowed = " or ".join(format_value(allowed) for allowed in rule.values)
            findings.error(path, f"{format_value(value)} is not supported: {rule.why}", rule.fix or f"write {allowed}")
        return False, None
    kind = rule.kind if isinstance(rule, Ignored | IgnoredWithWarning) else rule
    try:
        value = _adapter(kind).validate_python(value)
    except ValidationError as error:
        findings.error(path, f"{_reason(error)}, not {format_value(value)}", _fix(error))
        return False, None
    if isinstance(rule, IgnoredWithWarning) and value != rule.harmless:
        findings.warn(path, rule.why)
    return not isinstance(rule, Ignored | IgnoredWithWarning), value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _reason(error: ValidationError) -> str:
    """Return why a value has the wrong type, for each allowed type."""
    return " or ".join(dict.fromkeys(validation_messages.requirement(details) for details in error.errors()))


def _fix(error: ValidationError) -> str:
    """Return what to write, for each allowed type; a similar value alone."""
    errors = error.errors()
    if near := next(filter(None, map(validation_messages.near_choice, errors)), ""):
        return f"did you mean {near}?"
    fixes = [fix for fix in dict.fromkeys(map(validation_messages.fix, errors)) if fix]
    return " or ".join([*fixes[:1], *(fix.removeprefix("write ") for fix in fixes[1:])])


def _elsewhere(key: str, section: str) -> str:
    homes = [name for name, keys in SECTIONS.items() if name != section and key in keys]
    return f"move it to {homes[0]}" if homes else ""
