"""Parameters of a run: those of its document, of ``-p`` on start, and of a resumed run."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping
from typing import Any

from steps.runtime import files
from steps.runtime.gpu_time import PARAMETER as BUDGET
from steps.runtime.signatures import without_signatures
from workflows.argo.tags import item_text
from workflows.errors import Problem
from workflows.runner.state import Run, State, changed_paths

CHANGEABLE = (BUDGET,)
"""Parameters that a resumed run can change, since no result depends on them."""


def declared_values(document: dict[str, Any] | None) -> dict[str, str]:
    """Return the values in a document's arguments, by parameter; those without a value are omitted."""
    values = {item["name"]: item.get("value", item.get("default")) for item in _arguments(document or {})}
    return {name: item_text(value) for name, value in values.items() if value is not None}


def with_parameters(document: dict[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Return the document with parameter values in its arguments, as ``argo submit -p`` stores it."""
    new = copy.deepcopy(document)
    for parameter in _arguments(new):
        if parameter["name"] in values:
            parameter["value"] = values[parameter["name"]]
    return new


def split_answers(document: dict[str, Any], given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the parameters of the document in values of ``-p``, and the answers to its ``suspend`` templates."""
    names = {item["name"] for item in _arguments(document)} - _answer_names(document)
    own = {name: value for name, value in given.items() if name in names}
    return own, {name: value for name, value in given.items() if name not in names}


def newest_values(
    state: State, declared: Mapping[str, str], given: Mapping[str, str], overridden: Collection[str]
) -> dict[str, str]:
    """Return the values of a resumed run that replace those of its current document.

    Args:
        state: the state with the values of ``-p`` so far.
        declared: values of the current document.
        given: values of ``-p`` now, which come before everything else.
        overridden: parameters that ``--set`` sets now, which come before an earlier ``-p``. So does a value of the
            document that has changed since that ``-p``, or only has a renewed signature.
    """
    values = dict(state.parameters)
    for name, value in declared.items():
        if name in values and (name in overridden or _is_newer(value, state.replaced.get(name), values[name])):
            values[name] = value
    return values | dict(given)


def replaced_digests(
    state: State, declared: Mapping[str, str], overridden: Collection[str] = ()
) -> dict[str, tuple[str, str]]:
    """Return digests of the values of the document that those of the state replace, for ``newest_values``.

    A value that ``--set`` replaces for one resumption is not recorded, so that the next one does not return to that of
    the file; one of the file is, so that the next one can.
    """
    current = {name: _digests(value) for name, value in declared.items() if name in state.parameters}
    return state.replaced | {name: value for name, value in current.items() if name not in overridden}


def find_changes(old: dict[str, Any], new: dict[str, Any], given: Mapping[str, str]) -> list[Problem]:
    """Return what a resumed run cannot change: parameters of ``given`` (``-p``), and the paths of the document.

    Signatures of URLs and ``CHANGEABLE`` can differ.
    """
    values = declared_values(old)
    changed = {name for name in given.keys() - {*CHANGEABLE} if not _is_same(given[name], values.get(name))}
    message = "changed since the run was started"
    problems = [
        Problem(message, path=f"-p {name}", fix=f"remove -p {name}, or start a new run")
        for name in given
        if name in changed
    ]
    new = with_parameters(new, {name: values[name] for name in changed & values.keys()})
    old, new = (without_signatures(_comparable(item)) for item in (old, new))
    fix = "start a new run, or resume with the document of this run"
    return problems + [Problem(message, path=path, fix=fix) for path in changed_paths(old, new)]


def renew_inputs(run: Run, new: dict[str, Any]) -> None:
    """Replace renewed URLs and ``CHANGEABLE`` parameters in the inputs of nodes, so that finished nodes are kept."""
    old, current = declared_values(run.document), declared_values(new)
    renewed = {
        value: current[name] for name, value in old.items() if name in current and _is_same(value, current[name])
    }
    for node in run.state.nodes.values():
        inputs = {name: renewed.get(value, value) for name, value in node.inputs.items()}
        changed = {name: current[name] for name in CHANGEABLE if name in current}
        node.inputs = inputs | {name: value for name, value in changed.items() if inputs.get(name) == old.get(name)}


def _is_newer(value: str, replaced: tuple[str, str] | None, current: str) -> bool:
    """Return True if a value of the document has changed since ``-p`` replaced it by ``current``."""
    digests = _digests(value)
    if replaced is None or digests == replaced:
        return False
    return digests[0] != replaced[0] or _is_same(value, current)


def _digests(value: str) -> tuple[str, str]:
    """Return digests of a value without and with the signatures of its URLs, which the state does not contain."""
    return files.sha256_text(without_signatures(value)), files.sha256_text(value)


def _is_same(value: str, other: str | None) -> bool:
    """Return True if two values differ by signatures of URLs at most."""
    return bool(without_signatures(value) == without_signatures(other))


def _arguments(document: dict[str, Any]) -> list[dict[str, Any]]:
    return (_spec(document).get("arguments") or {}).get("parameters") or []


def _spec(document: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = document.get("spec") or {}
    spec = spec.get("workflowSpec", spec)
    return spec


def _answer_names(document: dict[str, Any]) -> set[str]:
    """Return the names of the answers to ``suspend`` templates, as ``suspends.questions`` does."""
    suspended = [template for template in _spec(document).get("templates") or [] if "suspend" in template]
    outputs = {item["name"]: (item.get("outputs") or {}).get("parameters") or [] for item in suspended}
    return {name for key, items in outputs.items() for name in [item["name"] for item in items] or [key]}


def _comparable(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without what can change before a run is resumed."""
    plain = _without_identity(document)
    values = declared_values(plain)
    for parameter in _arguments(plain):
        parameter["value"] = values.get(parameter["name"])
        parameter.pop("default", None)
    templates = (template.get("inputs") or {} for template in _spec(plain).get("templates") or [])
    inputs = (item for each in templates for item in each.get("parameters") or [])
    for parameter in [*_arguments(plain), *inputs]:
        if parameter["name"] in CHANGEABLE:
            parameter.pop("value", None)
            parameter.pop("default", None)
    return plain


def _without_identity(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without the fields that identify an object in a cluster."""
    plain: dict[str, Any] = json.loads(json.dumps(document))
    names = ("name", "generateName", "namespace", "uid", "creationTimestamp", "resourceVersion", "generation")
    metadata = {key: value for key, value in (plain.get("metadata") or {}).items() if key not in names}
    return plain | {"metadata": metadata}
