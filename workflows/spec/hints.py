"""Hints: what a valid Workspace could do, too."""

from __future__ import annotations

from collections.abc import Iterator

from presets import model, vllm_architectures
from workflows.errors import Problem
from workflows.spec.load import Manifest


def hints(manifest: Manifest) -> Iterator[Problem]:
    """Yield hints about a Workspace."""
    workspace, source = manifest.workspace, manifest.source
    if not workspace.tuning or workspace.inference:
        return
    base = model(workspace.tuning.preset.name)
    if base.cannot_serve or not vllm_architectures().lora.get(base.architecture):
        return
    yield Problem(
        "the adapter is packaged, but not served",
        "tuning",
        source.file_of("tuning"),
        source.line("tuning"),
        fix=f"to serve it after each run, add inference: {{preset: {{name: {workspace.tuning.preset.name}}}}}",
    )
