"""Rules of ``pipeline.search``, for a Workspace or a plan."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import ValidationError

from steps.runtime import validation_messages
from workflows.field_path import join
from workflows.spec import search as searches
from workflows.spec.findings import Findings
from workflows.spec.search import MAX_TRIALS, SCALES, PipelineSearch

ALIASES = {
    "r": "rank", "lora_r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout", "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batchSize",
}  # fmt: skip
"""KAITO's names of parameters, for the fix."""


def check(search: PipelineSearch, path: str, findings: Findings) -> None:
    """Report every parameter that cannot be searched, values out of bounds, and contradicting settings."""
    place, before = join(path, "parameters"), len(findings.errors)
    if not search.parameters:
        findings.error(path, "no parameter to search", "add parameters: {learningRate: [1.0e-4, 2.0e-4]}")
    for name, space in search.parameters.items():
        _check_parameter(name, space, join(place, name), search.method, findings)
    samples = search.method != "grid"
    if samples and search.trials is None:
        findings.error(path, f"trials is required with method {search.method}", "add trials: 8")
    if not samples and search.trials is not None:
        fix = "remove it, or set method: random"
        findings.error(join(path, "trials"), "has no effect with method grid, which tries every combination", fix)
    if search.method != "halving" and search.reduction is not None:
        findings.error(join(path, "reduction"), f"has no effect with method {search.method}", "remove it")
    if search.parameters and len(findings.errors) == before:
        _check_size(search, path, findings)


def _check_parameter(name: str, space: Any, place: str, method: str, findings: Findings) -> None:
    known = searches.parameters()
    if name not in known:
        near = ALIASES.get(name) or next(iter(difflib.get_close_matches(name, known, 1)), "")
        fix = f"did you mean {near}?" if near else f"use one of: {', '.join(known)}"
        findings.error(place, "is not a setting that can be searched", fix)
    elif isinstance(space, list):
        _check_list(name, space, place, findings)
    elif isinstance(space, dict):
        if method == "grid":
            fix = "list the values, or set method: random and trials"
            findings.error(place, "a grid requires a list of values, not a range", fix)
        _check_range(name, space, place, findings)
    else:
        findings.error(place, "must be a list of values, or a range", f"write {name}: [{space}]")


def _check_list(name: str, values: list[Any], place: str, findings: Findings) -> None:
    if not values:
        findings.error(place, "must list at least one value", f"add a value, or remove {name}")
    seen = []
    for index, value in enumerate(values):
        number = _number(name, value, join(place, index), findings)
        if number is not None and number in seen:
            findings.error(join(place, index), "is a duplicate", "remove one of them")
        seen.append(number)


def _check_range(name: str, space: dict[Any, Any], place: str, findings: Findings) -> None:
    for key in space:
        if key not in ("min", "max", "scale"):
            findings.error(join(place, str(key)), "unknown field", "known: min, max, scale")
    ends = {}
    for key in ("min", "max"):
        if key not in space:
            findings.error(place, f"{key} is missing", f"write {name}: {{min: ..., max: ...}}")
        else:
            ends[key] = _number(name, space[key], join(place, key), findings)
    scale = space.get("scale", "linear")
    if scale not in SCALES:
        findings.error(join(place, "scale"), f"must be linear or log, not {scale!r}", "write scale: log")
    low, high = ends.get("min"), ends.get("max")
    if low is None or high is None:
        return
    if low > high:
        findings.error(place, f"min ({low:g}) is greater than max ({high:g})", "swap them")
    elif scale == "log" and low <= 0:
        findings.error(join(place, "min"), f"must be greater than 0 with scale log, not {low:g}", "raise it")


def _number(name: str, value: Any, place: str, findings: Findings) -> float | None:
    """Return a valid value of a parameter; report an invalid one, as the setting of the training would be."""
    if isinstance(value, bool):
        findings.error(place, f"must be a number, not {str(value).lower()}", "write a number")
        return None
    try:
        return float(searches.parameters()[name].validate_python(value))
    except ValidationError as error:
        details = error.errors()[0]
        findings.error(place, validation_messages.describe(details), validation_messages.fix(details))
        return None


def _check_size(search: PipelineSearch, path: str, findings: Findings) -> None:
    combinations = searches.num_combinations(search)
    if search.method == "grid" and combinations > MAX_TRIALS:
        fix = "list fewer values, or set method: random and trials"
        findings.error(join(path, "parameters"), f"has {combinations:.0f} combinations (limit {MAX_TRIALS})", fix)
    elif search.method != "grid" and (search.trials or 0) > combinations:
        what = f"is greater than the number of combinations ({combinations:.0f})"
        findings.error(join(path, "trials"), what, f"write trials: {combinations:.0f}, or add values")
    elif search.method != "grid" and len(searches.trials(search)) < (search.trials or 0):
        what = f"has only {len(searches.trials(search))} distinct samples"
        findings.error(join(path, "parameters"), what, "widen the ranges, or lower trials")
