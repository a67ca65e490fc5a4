"""Read a Workspace file, and report all its problems together, each with its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workflows.errors import InvalidInput, Problem
from workflows.spec import inference_config, inference_set, placeholders, rules, source_text, training
from workflows.spec.config_maps import MISSING, ConfigMaps, Lookup
from workflows.spec.findings import Findings
from workflows.spec.objects import KINDS, OTHER_KINDS, KubernetesObject, list_items, twice
from workflows.spec.source import Source, documents
from workflows.spec.training import TrainingConfig
from workflows.spec.workspace import Workspace


@dataclass(frozen=True)
class Manifest:
    """One Workspace of a file, with its configuration."""

    workspace: Workspace
    training: TrainingConfig
    """Content of the ConfigMap ``tuning.config``; ``source`` has its lines as ``training_config.SECTION.KEY``."""
    inference_config: dict[str, Any]
    """``{"vllm": {flag: value}}`` of the ConfigMap ``inference.config``; otherwise empty."""
    source: Source
    warnings: tuple[Problem, ...] = ()
    """Warnings of the file."""

    @property
    def eval_split(self) -> float:
        """Share of the rows held out for the evaluation."""
        return rules.held_out(self.workspace, self.training)


def load(
    path: str | Path, *, local: bool = False, others: Sequence[str] = (), lookup: Lookup | None = None
) -> list[Manifest]:
    """Read all Workspaces of a YAML file (``-``: standard input), with their ConfigMaps.

    Args:
        path: the file.
        local: the local machine runs them, so the memory of the instance type does not matter.
        others: more files; ConfigMaps that this file lacks are read from them.
        lookup: reads ConfigMaps that no file contains.

    Raises:
        InvalidInput: with all problems of the file, sorted by line.
    """
    file = source_text.label(path)
    parts, problems = documents(source_text.read(path, file), file)
    items = [item for part in parts for item in list_items(part)]
    objects = [KubernetesObject(item, file) for item in items if item.value is not None]
    is_whole = not problems
    problems += [problem for thing in objects for problem in thing.check()]
    problems += twice(objects)
    # What cannot be read can contain the ConfigMap.
    configs = ConfigMaps(objects, lookup if is_whole else None)
    problems += configs.add_files(others, file)
    manifests = []
    for thing in objects:
        if thing.kind in KINDS:
            manifest, wrong = _manifest(thing, configs, local)
            # What cannot be read is not reported as missing, too.
            problems += wrong if is_whole else [problem for problem in wrong if MISSING not in problem.message]
            manifests += [manifest] if manifest else []
    if not problems and not manifests and not (len(others) > 1 and _only_config_maps(objects)):
        problems += _nothing(objects, file)
    if problems:
        raise InvalidInput(sorted(dict.fromkeys(problems), key=lambda problem: problem.line))
    aside = tuple(_aside(objects, manifests, is_alone=len(others) < 2))
    return [replace(manifest, warnings=(*manifest.warnings, *aside)) for manifest in manifests]


def _only_config_maps(objects: list[KubernetesObject]) -> bool:
    return all(thing.kind not in (*KINDS, *OTHER_KINDS) for thing in objects)


def _nothing(objects: list[KubernetesObject], file: str) -> Iterator[Problem]:
    """Yield the problems of a file without a Workspace, with the reasons for KAITO's other kinds."""
    refused = [thing for thing in objects if thing.kind in OTHER_KINDS]
    for thing in refused:
        why, fix = OTHER_KINDS[thing.kind]
        yield thing.problem("kind", f"{thing.kind} cannot be compiled: {why}", fix)
    if not refused:
        there = f"contains no Workspace, only {', '.join(sorted({thing.kind for thing in objects}))}"
        fix = "write an object with apiVersion: kaito.sh/v1beta1 and kind: Workspace"
        yield Problem(there if objects else "is empty", file=file, fix=fix)


def _manifest(thing: KubernetesObject, configs: ConfigMaps, local: bool) -> tuple[Manifest | None, list[Problem]]:
    findings = Findings(thing.source, local=local)
    value = thing.workspace_fields(findings)
    placeholders.check(value, "", findings)
    workspace = (
        inference_set.read(value, findings) if thing.kind == inference_set.KIND else findings.read(Workspace, value)
    )
    rules.check_braces(value, "", findings)
    rules.check_text(value, "", findings)
    if not workspace:
        return None, findings.errors
    trained, server = _training(workspace, configs, findings), _server(workspace, configs, findings)
    rules.check(workspace, trained, server, findings)
    if findings.errors:
        return None, findings.errors
    warnings = tuple(sorted(dict.fromkeys(findings.warnings), key=lambda problem: problem.line))
    return Manifest(workspace, trained, server, findings.source, warnings), []


def _training(workspace: Workspace, configs: ConfigMaps, findings: Findings) -> TrainingConfig:
    name = workspace.tuning.config if workspace.tuning else ""
    namespace = workspace.metadata.namespace
    content = configs.content(name, namespace, "tuning.config", training.KEY, "", findings)
    if not workspace.tuning or content is None:
        return TrainingConfig()
    read = training.parse(content, name, findings)
    training.check_method(read, workspace.tuning.quantized, findings)
    for section, values in read.sections():
        # A chat template consists of braces; the compiler escapes them for Argo.
        given = {key: value for key, value in values.items() if key != "chat_template"}
        rules.check_braces(given, f"{training.ROOT}.{section}", findings)
        rules.check_text(values, f"{training.ROOT}.{section}", findings)
    return read


def _server(workspace: Workspace, configs: ConfigMaps, findings: Findings) -> dict[str, Any]:
    name = workspace.inference.config if workspace.inference else ""
    place = (workspace.metadata.namespace, "inference.config", inference_config.KEY, inference_config.ROOT)
    content = configs.content(name, *place, findings)
    if not workspace.inference or content is None:
        return {}
    read = inference_config.parse(content, rules.find(workspace.inference.preset), findings)
    flags = {flag: value for flag, value in read.get("vllm", {}).items() if flag != inference_config.CHAT_TEMPLATE}
    rules.check_braces({"vllm": flags}, inference_config.ROOT, findings)
    return read


def _aside(objects: list[KubernetesObject], manifests: list[Manifest], *, is_alone: bool) -> Iterator[Problem]:
    """Yield warnings for objects other than Workspaces and their ConfigMaps."""
    used = set()
    for manifest in manifests:
        tuning, inference = manifest.workspace.tuning, manifest.workspace.inference
        used |= {tuning.config if tuning else "", inference.config if inference else ""}
    for thing in objects:
        if thing.kind == "ConfigMap" and thing.name not in used and is_alone:
            yield thing.problem(
                "kind", f"ConfigMap {thing.name} is not used by any Workspace", "remove it, or name it in a Workspace"
            )
        elif thing.kind in OTHER_KINDS:
            why, fix = OTHER_KINDS[thing.kind]
            yield thing.problem("kind", f"{thing.kind} {thing.name} cannot be compiled: {why}", fix)
        elif thing.kind not in ("ConfigMap", *KINDS):
            yield thing.problem("kind", f"{thing.kind} {thing.name} cannot be compiled", "apply it with kubectl")
