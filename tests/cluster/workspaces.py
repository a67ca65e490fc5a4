"""Workspaces of the cluster tests: the small model, tuned for a few steps or served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

PRESET = {"name": "smollm2-135m-instruct"}


def write_workspace(
    folder: Path,
    name: str,
    *,
    max_steps: int = 4,
    rows: str = "oncall-rows",
    output: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    pipeline: dict[str, Any] | None = None,
    **fields: Any,
) -> Path:
    """Write a Workspace that tunes the model, and its training configuration; ``fields`` are added to the document."""
    tuning = {
        "preset": PRESET,
        "method": "qlora",
        "config": f"{name}-training",
        "input": {"volumeSource": {"configMap": {"name": rows}}},
        "output": output or {"volumeSource": {"persistentVolumeClaim": {"claimName": "adapters"}}},
    }
    # Few rows are held out: a CPU evaluates them slowly.
    pipeline = {"data": {"evalSplit": 0.01}, "evaluation": {"samples": 1}, **(pipeline or {})}
    arguments = {"max_steps": max_steps, "per_device_train_batch_size": 2, **(training or {})}
    config = yaml.safe_dump({"training_config": {"TrainingArguments": arguments}})
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-training"},
        "data": {"training_config.yaml": config},
    }
    return _write(folder, {**_workspace(name), "tuning": tuning, "pipeline": pipeline, **fields}, config_map)


def write_service(folder: Path, name: str, image: str, *, rollout: dict[str, Any] | None = None) -> Path:
    """Write a Workspace that serves the model and the adapter ``tuned`` of an image."""
    inference = {"preset": PRESET, "adapters": [{"source": {"name": "tuned", "image": image}}]}
    options = {"runtime": "transformers", "question": "What is 1+1? One number."}
    return _write(
        folder, {**_workspace(name), "inference": inference, "pipeline": {"rollout": options | (rollout or {})}}
    )


def _workspace(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": name},
        "resource": {"labelSelector": {"matchLabels": {"kubernetes.io/os": "linux"}}},
    }


def _write(folder: Path, *documents: dict[str, Any]) -> Path:
    file = folder / f"{documents[0]['metadata']['name']}.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    return file
