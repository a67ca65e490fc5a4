"""Read a Workspace file: every problem in it at once, each with its line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workflows.errors import InvalidInput, Problem
from workflows.spec import inference_config, inference_set, rules, training
from workflows.spec.findings import Findings
from workflows.spec.objects import KAITO_TEMPLATES, KINDS, OTHER_KINDS, KubernetesObject, twice
from workflows.spec.source import Source, documents
from workflows.spec.training import TrainingConfig
from workflows.spec.workspace import Workspace

ConfigMaps = dict[str, KubernetesObject]


@dataclass(frozen=True)
class Manifest:
    """One Workspace of a file, with the configuration it names."""

    workspace: Workspace
    training: TrainingConfig
    """Of the ConfigMap that ``tuning.config`` names; ``source`` has its lines as ``training_config.SECTION.KEY``."""
    inference_config: dict[str, Any]
    """``{"vllm": {flag: value}}`` of the ConfigMap that ``inference.config`` names; else empty."""
    source: Source
    warnings: tuple[Problem, ...] = ()
    """What the user should know but need not change."""

    @property
    def eval_split(self) -> float:
        """Share of the rows that is held out for the evaluation."""
        return rules.held_out(self.workspace, self.training)


def load(path: str | Path, *, here: bool = False) -> list[Manifest]:
    """Read all Workspaces of a YAML file; ``-`` is standard input. ConfigMaps are found by name in the same file.

    ``here``: this machine will run them, so that the memory of the size that they name does not count.

    Raises:
        InvalidInput: with every problem of the file, in its order.
    """
    file = "<stdin>" if str(path) == "-" else str(path)
    parts, problems = documents(_text(path, file), file)
    objects = [KubernetesObject(part, file) for part in parts if part.value is not None]
    problems += [problem for thing in objects for problem in thing.check()]
    problems += twice(objects)
    configs = {thing.name: thing for thing in objects if thing.kind == "ConfigMap"}
    manifests = []
    for thing in objects:
        if thing.kind in KINDS:
            manifest, wrong = _manifest(thing, configs, here)
            problems += wrong
            manifests += [manifest] if manifest else []
    if not problems and not manifests:
        problems += _nothing(objects, file)
    if problems:
        raise InvalidInput(sorted(dict.fromkeys(problems), key=lambda problem: problem.line))
    aside = tuple(_aside(objects, manifests))
    return [replace(manifest, warnings=(*manifest.warnings, *aside)) for manifest in manifests]


def _text(path: str | Path, file: str) -> str:
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(Problem(f"is not UTF-8 text: {error.reason}", file=file, fix="save it as UTF-8")) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(Problem(f"cannot be read: {reason}", file=file, fix="check the path")) from None


def _nothing(objects: list[KubernetesObject], file: str) -> Iterator[Problem]:
    """What to say of a file without a Workspace: why not what it holds instead, where that is of KAITO."""
    refused = [thing for thing in objects if thing.kind in OTHER_KINDS]
    for thing in refused:
        why, fix = OTHER_KINDS[thing.kind]
        yield thing.problem("kind", f"{thing.kind} is not compiled: {why}", fix)
    if not refused:
        there = f"holds no Workspace, only {', '.join(sorted({thing.kind for thing in objects}))}"
        fix = "write an object with apiVersion: kaito.sh/v1beta1 and kind: Workspace"
        yield Problem(there if objects else "is empty", file=file, fix=fix)


def _manifest(thing: KubernetesObject, configs: ConfigMaps, here: bool) -> tuple[Manifest | None, list[Problem]]:
    found = Findings(thing.source, here=here)
    value = thing.workspace_fields(found)
    workspace = inference_set.read(value, found) if thing.kind == inference_set.KIND else found.read(Workspace, value)
    rules.check_braces(value, "", found)
    if not workspace:
        return None, found.errors
    trained, server = _training(workspace, configs, found), _server(workspace, configs, found)
    rules.check(workspace, trained, server, found)
    if found.errors:
        return None, found.errors
    warnings = tuple(sorted(dict.fromkeys(found.warnings), key=lambda problem: problem.line))
    return Manifest(workspace, trained, server, found.source, warnings), []


def _training(workspace: Workspace, configs: ConfigMaps, found: Findings) -> TrainingConfig:
    name = workspace.tuning.config if workspace.tuning else ""
    content = _config(name, "tuning.config", training.KEY, "", configs, found)
    if not workspace.tuning or content is None:
        return TrainingConfig()
    read = training.parse(content, name, found)
    training.check_method(read, workspace.tuning.quantized, found)
    for section, values in read.sections():
        # A chat template is nothing but braces; the compiler writes them so that Argo sees none.
        given = {key: value for key, value in values.items() if key != "chat_template"}
        rules.check_braces(given, f"{training.ROOT}.{section}", found)
    return read


def _server(workspace: Workspace, configs: ConfigMaps, found: Findings) -> dict[str, Any]:
    name = workspace.inference.config if workspace.inference else ""
    content = _config(name, "inference.config", inference_config.KEY, inference_config.ROOT, configs, found)
    if not workspace.inference or content is None:
        return {}
    read = inference_config.parse(content, rules.find(workspace.inference.preset), found)
    flags = {flag: value for flag, value in read.get("vllm", {}).items() if flag != inference_config.CHAT_TEMPLATE}
    rules.check_braces({"vllm": flags}, inference_config.ROOT, found)
    return read


def _config(name: str, path: str, key: str, prefix: str, configs: ConfigMaps, found: Findings) -> Any:
    """Content of the ConfigMap that a Workspace names; None where there is none to read."""
    if not name:
        return None
    if name in configs:
        return configs[name].config(key, prefix, found)
    if name in KAITO_TEMPLATES:
        fix = "put the ConfigMap into this file to have KAITO's values"
        found.warn(path, f"{name} is KAITO's own default; argotune's defaults are used instead", fix)
    else:
        what = f"ConfigMap '{name}' specified in 'config' not found in this file"
        found.wrong(path, what, "add it after a line ---, for example from kubectl get configmap -o yaml")
    return None


def _aside(objects: list[KubernetesObject], manifests: list[Manifest]) -> Iterator[Problem]:
    """Warnings for what the file holds besides Workspaces and their ConfigMaps."""
    used = set()
    for manifest in manifests:
        tuning, inference = manifest.workspace.tuning, manifest.workspace.inference
        used |= {tuning.config if tuning else "", inference.config if inference else ""}
    for thing in objects:
        if thing.kind == "ConfigMap" and thing.name not in used:
            yield thing.problem("kind", f"ConfigMap {thing.name} is not named by any Workspace", "")
        elif thing.kind in OTHER_KINDS:
            why, fix = OTHER_KINDS[thing.kind]
            yield thing.problem("kind", f"{thing.kind} {thing.name} is not compiled: {why}", fix)
        elif thing.kind not in ("ConfigMap", *KINDS):
            yield thing.problem("kind", f"{thing.kind} {thing.name} is not compiled", "apply it with kubectl")
