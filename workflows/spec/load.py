"""Read a Workspace file, and report all its problems together, each with its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workflows.errors import InvalidInput, Problem
from workflows.spec import inference_config, inference_set, rules, source_text, training
from workflows.spec.findings import Findings
from workflows.spec.objects import KAITO_TEMPLATES, KINDS, OTHER_KINDS, KubernetesObject, list_items, twice
from workflows.spec.source import Source, documents
from workflows.spec.training import TrainingConfig
from workflows.spec.workspace import Workspace

MISSING = "not found in this file"
ConfigMaps = dict[str, KubernetesObject]


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


def load(path: str | Path, *, local: bool = False, others: Sequence[str] = ()) -> list[Manifest]:
    """Read all Workspaces of a YAML file (``-``: standard input), with their ConfigMaps.

    Args:
        path: the file.
        local: the local machine runs them, so the memory of the instance type does not matter.
        others: more files; ConfigMaps that this file lacks are read from them.

    Raises:
        InvalidInput: with all problems of the file, sorted by line.
    """
    file = "<stdin>" if str(path) == "-" else str(path)
    parts, problems = documents(source_text.read(path, file), file)
    items = [item for part in parts for item in list_items(part)]
    objects = [KubernetesObject(item, file) for item in items if item.value is not None]
    is_whole = not problems
    problems += [problem for thing in objects for problem in thing.check()]
    problems += twice(objects)
    configs: ConfigMaps = {thing.name: thing for thing in objects if thing.kind == "ConfigMap"}
    problems += _add_config_maps(configs, others, file)
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


def _add_config_maps(configs: ConfigMaps, files: Sequence[str], file: str) -> Iterator[Problem]:
    """Add the ConfigMaps of other files that this one lacks, without their problems, which each file reports.

    Yields:
        ConfigMaps of one name in two of the other files.
    """
    own = set(configs)
    for other in files:
        if other != file and other != "-":
            try:
                parts, _ = documents(source_text.read(other, other), other)
            except InvalidInput:
                continue
            objects = (KubernetesObject(item, other) for part in parts for item in list_items(part))
            for thing in objects:
                if thing.kind != "ConfigMap" or thing.name in own:
                    continue
                first = configs.setdefault(thing.name, thing)
                if first.source.file != thing.source.file:
                    what = f"ConfigMap {thing.name} is also in {first.source.file}"
                    yield thing.problem("metadata.name", what, "pass only one of these files")


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
    content = _config(name, "tuning.config", training.KEY, "", configs, findings)
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
    content = _config(name, "inference.config", inference_config.KEY, inference_config.ROOT, configs, findings)
    if not workspace.inference or content is None:
        return {}
    read = inference_config.parse(content, rules.find(workspace.inference.preset), findings)
    flags = {flag: value for flag, value in read.get("vllm", {}).items() if flag != inference_config.CHAT_TEMPLATE}
    rules.check_braces({"vllm": flags}, inference_config.ROOT, findings)
    return read


def _config(name: str, path: str, key: str, prefix: str, configs: ConfigMaps, findings: Findings) -> Any:
    """Return the content of the ConfigMap of a Workspace; None if there is none."""
    if not name:
        return None
    if name in configs:
        return configs[name].config(key, prefix, findings)
    if name in KAITO_TEMPLATES:
        fix = "add the ConfigMap to this file to use KAITO's values"
        findings.warn(path, f"{name} is KAITO's default; argotune uses its own defaults", fix)
    else:
        what = f"ConfigMap '{name}' specified in 'config' {MISSING}"
        fix = "add it after a line ---, or pass its file or directory too (kubectl get configmap -o yaml prints it)"
        findings.error(path, what, fix)
    return None


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
