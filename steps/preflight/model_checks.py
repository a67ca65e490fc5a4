"""Check that the base model is readable, with a HEAD request for one of its files.

The hub reports the reason in headers (``X-Error-Code``, huggingface_hub's ``hf_raise_for_status``). A proxy that
blocks the hub returns the same status codes without them: the model then comes from a cache or a wheel, or tune fails.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress

import requests

import presets
from steps.models.model_hub import TOKEN_FIX
from steps.runtime import connection_failure, hosts
from steps.runtime.errors import BadInput, StepError, TransientError
from steps.runtime.retry import RetryPolicy, Sleep, is_transient, retry_after, retry_call

TIMEOUT = (5.0, 20.0)
RETRY = RetryPolicy(max_attempts=3, max_retry_after_seconds=30.0)
HUB = "https://huggingface.co"


def check(preset: str, model: str, revision: str, wait: Sleep = time.sleep) -> Iterator[str | StepError]:
    """Check the model of a preset, or ``model``, on the hub; yield nothing if neither is set."""
    facts = None
    with suppress(presets.UnknownPreset):
        facts = presets.model(preset) if preset else None
    repository = model or (facts.repository if facts else preset)
    if not repository:
        return
    if repository.startswith(("/", "./", "../", "~")):
        yield f"base model: the folder {repository}, which the tune step checks"
        return
    is_preset = facts is not None and facts.repository == repository
    yield _check(repository, revision or (facts.revision if facts and is_preset else "") or "main", wait)


def _check(repository: str, revision: str, wait: Sleep) -> str | StepError:
    label = f"base model {repository} at {revision[:12]}"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return f"{label} was not checked: HF_HUB_OFFLINE is set"
    endpoint = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    try:
        response = _head(f"{endpoint}/{repository}/resolve/{revision}/config.json", wait)
    except requests.RequestException as error:
        reason = connection_failure.classify(error).reason
        return f"{label} was not checked: hub unreachable ({reason}); a cache or a wheel must have it"
    if response.status_code < 400:
        return f"{label} is readable"
    return _hub_error(response, repository, revision, endpoint) or (
        f"{label} was not checked: HTTP {response.status_code}, not from the hub; a cache or a wheel must have it"
    )


def _head(url: str, wait: Sleep) -> requests.Response:
    """Send a HEAD request, with retries, so that a forbidden model is reported before a node is created."""
    responses: list[requests.Response] = []

    def send() -> None:
        responses.clear()
        responses.append(
            requests.head(
                url,
                auth=hosts.authentication(url, url) or hosts.anonymous_auth,
                allow_redirects=False,
                timeout=TIMEOUT,
            )
        )
        if connection_failure.is_transient_status(responses[0].status_code):
            raise TransientError(f"HTTP {responses[0].status_code}", retry_after=retry_after(responses[0]))

    with suppress(TransientError):  # the caller evaluates the last response
        retry_call(send, RETRY, retry_if=_can_pass, sleep=wait)
    return responses[0]


def _can_pass(error: Exception) -> bool:
    if isinstance(error, requests.RequestException):
        return not isinstance(error, requests.ConnectTimeout) and not connection_failure.classify(error).is_permanent
    return is_transient(error)


def _hub_error(response: requests.Response, repository: str, revision: str, endpoint: str) -> BadInput | None:
    """Return the error that the hub reports; None if the response is not from the hub."""
    code, message = response.headers.get("X-Error-Code", ""), response.headers.get("X-Error-Message", "")
    status, page = response.status_code, f"{endpoint}/{repository}"
    if not (code or message) or status == 429 or status >= 500:
        return None
    if status == 401 and "credentials" in message.lower():
        return BadInput("the hub rejects the token in HF_TOKEN", f"create a new one: {endpoint}/settings/tokens")
    if code == "GatedRepo" and os.environ.get("HF_TOKEN"):
        return BadInput(
            f"{repository} is gated, and the token in HF_TOKEN has no access",
            f"accept its license at {page} with the token's account, or use another token",
        )
    if code == "GatedRepo":
        return BadInput(
            f"{repository} is gated: a token of an account that has accepted its license is required", TOKEN_FIX
        )
    if code == "RevisionNotFound":
        return BadInput(f"{repository} has no revision {revision}", "use a branch, a tag or a full commit hash")
    if code == "EntryNotFound":
        return BadInput(f"{repository} is not a model: it has no config.json", "use a model in transformers' format")
    if code == "RepoNotFound" or status in (401, 404):
        return BadInput(
            f"{repository} does not exist on the hub, or requires a token with access",
            f"check the name; if it is private or gated: {TOKEN_FIX}",
        )
    return BadInput(f"the hub rejects access to {repository} (HTTP {status} {code}: {message})", TOKEN_FIX)
