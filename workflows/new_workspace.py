"""The text of a new Workspace, from the answers of ``argotune init``."""

from __future__ import annotations

import glob
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from presets import Model, Sku, prices, vllm_architectures
from steps.tune.settings import TrainingOptions
from workflows import first_training
from workflows.errors import Problem
from workflows.spec import resource_rules, urls
from workflows.spec.findings import Findings
from workflows.spec.source import Source

CLAIM = "claim:"
"""Prefix of the name of a PersistentVolumeClaim with the data."""
ROWS = "rows"
"""Claim of a local run: the directory of the data."""
MAX_LOSS_RATIO = 0.9
"""Gate of a first run: an adapter that is not clearly better than its base model has learned nothing."""
WORDS = ("yes", "no", "on", "off", "true", "false", "null")
"""Names that YAML does not read as text."""
HF_SECRET = "hf-token"
"""Secret that a gated model needs."""


@dataclass(frozen=True)
class Answers:
    """The user's answers: model, data, and local machine or cluster."""

    preset: Model
    name: str
    """Name of the model, as the user writes it."""
    data: str
    """URL, path, or ``claim:NAME``."""
    local: bool
    """True for the local machine, False for a cluster."""
    training_rows: int | None = None
    """Rows to train on; None if they are not counted."""

    @property
    def path(self) -> Path | None:
        """The data on this machine; None for a URL or a claim."""
        return None if "://" in self.data or self.data.startswith(CLAIM) else Path(self.data)

    @property
    def pattern(self) -> str:
        """Pattern that selects the data in its directory; "" for all files."""
        return "" if self.path is None or self.path.is_dir() else glob.escape(self.path.name)

    @property
    def folder(self) -> Path | None:
        """The directory of the data on this machine."""
        return self.path if self.path is None or self.path.is_dir() else self.path.parent


def workspace_name(file: str, model: str) -> str:
    """Return the name of the Workspace: that of the file, unless it is a general one; otherwise that of the model.

    It differs from that of the model, since both are served.
    """
    stem, of_model = Path(file).stem, _label(model.partition("@")[0].rpartition("/")[2]) or "model"
    name = of_model if stem in ("", "-", "workspace") else _label(stem) or of_model
    return f"{name}-tuned" if name == of_model else name


def _label(text: str) -> str:
    """Return a text as a part of a DNS-1123 label."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:40].strip("-")


def location_errors(url: str, *, allow_private: bool) -> list[Problem]:
    """Return why data cannot be read from a URL."""
    findings = Findings(Source(""))
    urls.check(url, "", allow_private, findings)
    return findings.errors


def text(answers: Answers, file: str) -> str:
    """Return the YAML of a Workspace and its ConfigMap, with comments."""
    name = workspace_name(file, answers.name)
    parts = [
        *_head(answers, file, name),
        *([] if answers.local else _resource(answers.preset)),
        *_tuning(answers, name),
        *(_inference(answers) if _can_serve(answers) else []),
        *_pipeline(answers),
        *_config_map(answers, name),
    ]
    return "\n".join(parts) + "\n"


def next_commands(answers: Answers, file: str) -> dict[str, str]:
    """Return the commands to continue with, by what they do."""
    quoted, folder = shlex.quote(file), shlex.quote(str(answers.folder))
    if answers.local:
        volume = f" --volume {ROWS}={folder}" if answers.folder else ""
        return {"check": f"argotune validate {quoted}", "run": f"argotune run {quoted}{volume}"}
    return {
        "check": f"argotune validate {quoted} --cluster",
        "price": f"argotune plan {quoted}",
        "run": f"argotune submit {quoted} --watch",
    }


def _head(answers: Answers, file: str, name: str) -> Iterator[str]:
    yield "# yaml-language-server: $schema=workspace.schema.json"
    yield "# Editors complete and check this file after: argotune schema > workspace.schema.json"
    yield "#"
    if not any(not character.isprintable() for character in file):
        commands = next_commands(answers, file).values()
        yield from (f"#   {command}" for command in commands)
        yield "#"
    yield "# docs/FIELDS.md lists all fields."
    yield "apiVersion: kaito.sh/v1beta1"
    yield "kind: Workspace"
    yield "metadata:"
    yield f"  name: {_scalar(name)}"


def _resource(preset: Model) -> Iterator[str]:
    smallest = resource_rules.smallest_server(preset)
    yield "resource:"
    yield "  # Existing nodes with these labels. For others, name an instance type; argotune plan shows its price."
    if smallest:
        yield f"  # instanceType: {smallest.name} # {_machine(smallest)}"
    yield "  labelSelector:"
    yield "    matchLabels:"
    yield "      kubernetes.io/os: linux"


def _machine(sku: Sku) -> str:
    price = prices().usd_per_hour.get(sku.name)
    cost = f", {price.regular:g} USD/hour" if price else ""
    return f"{sku.gpus} x {sku.gpu}, {sku.gpu_memory_gib} GiB each{cost}"


def _tuning(answers: Answers, name: str) -> Iterator[str]:
    yield "tuning:"
    yield from _preset(answers)
    yield "  method: qlora # the base model in 4 bits; lora: in 16 bits"
    yield f"  config: {name}-training"
    yield "  input:"
    if answers.data.startswith(CLAIM) or answers.path is not None:
        claim = answers.data.removeprefix(CLAIM) if answers.path is None else ROWS
        if answers.path is not None:
            yield f"    # A directory of this machine: argotune run --volume {ROWS}=DIRECTORY"
        yield "    volumeSource:"
        yield "      persistentVolumeClaim:"
        yield f"        claimName: {_scalar(claim)}"
    else:
        yield "    urls:"
        yield f"      - {json.dumps(answers.data, ensure_ascii=False)}"
    yield "  output:"
    yield "    # To push the adapter as an OCI image, replace volumeSource by image: REGISTRY/REPOSITORY:TAG"
    if not answers.local:
        yield "    # The claim must exist: argotune validate --cluster checks it"
    yield "    volumeSource:"
    yield "      persistentVolumeClaim:"
    yield f"        claimName: {name}-adapter"


def _preset(answers: Answers) -> Iterator[str]:
    yield "  preset:"
    yield f"    name: {_scalar(answers.name)} # argotune presets lists the models"
    if answers.preset.gated:
        yield "    presetOptions:"
        create = f"kubectl create secret generic {HF_SECRET} --from-literal=HF_TOKEN=..."
        how = "export HF_TOKEN=..." if answers.local else create
        yield f"      modelAccessSecret: {HF_SECRET} # {how}"


def _can_serve(answers: Answers) -> bool:
    preset = answers.preset
    return not preset.cannot_serve and (answers.local or bool(vllm_architectures().lora.get(preset.architecture)))


def _inference(answers: Answers) -> Iterator[str]:
    yield "inference: # serves the adapter; without this block it is only packaged"
    yield from _preset(answers)


def _pipeline(answers: Answers) -> Iterator[str]:
    yield "pipeline:"
    yield "  data:"
    yield f"    evalSplit: {first_training.EVAL_SPLIT:g} # rows held out to compare the adapter with its base model"
    if answers.pattern:
        yield f"    pattern: {json.dumps(answers.pattern, ensure_ascii=False)}"
    if "://" in answers.data and location_errors(answers.data, allow_private=False):
        yield "    allowPrivateHosts: true # the host of the data is on a private network"
    yield "  evaluation:"
    yield "    # Gate: on held-out rows, the adapter's loss must be below this share of the base model's"
    yield f"    maxLossRatio: {MAX_LOSS_RATIO:g}"
    yield "    confident: true # not by chance: the 95% confidence interval of the ratio must be below it"


def _config_map(answers: Answers, name: str) -> Iterator[str]:
    defaults, epochs = TrainingOptions(), first_training.choose_epochs(answers.training_rows)
    lora: dict[str, Any] = {"r": defaults.rank, "lora_alpha": defaults.alpha}
    arguments: dict[str, Any] = {
        "num_train_epochs": epochs,
        "learning_rate": defaults.learning_rate,
        "per_device_train_batch_size": defaults.batch_size,
        "max_length": defaults.max_length,
    }
    yield "---"
    yield "apiVersion: v1"
    yield "kind: ConfigMap"
    yield "metadata:"
    yield f"  name: {name}-training"
    yield "data:"
    yield "  training_config.yaml: |"
    yield "    training_config:"
    yield "      LoraConfig:"
    yield from (f"        {key}: {value:g}" for key, value in lora.items())
    yield "      TrainingArguments: # max_steps: 10 makes a short trial, which learns little"
    yield f"        # {first_training.explain_epochs(answers.training_rows)}"
    yield from (f"        {key}: {value:g}" for key, value in arguments.items())


def _scalar(value: str) -> str:
    """Return a name as a YAML scalar, in quotes where YAML would not read it as text."""
    is_text = re.fullmatch(r"[A-Za-z][A-Za-z0-9./@_-]+", value) and value.lower() not in WORDS
    return value if is_text else json.dumps(value)
