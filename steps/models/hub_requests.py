"""Requests to the model hub with ``requests``, and the errors that it reports.

The hub reports the reason in headers (``X-Error-Code``, huggingface_hub's ``hf_raise_for_status``). A proxy that
blocks the hub returns the same status codes without them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import requests
from urllib3.exceptions import HTTPError

from steps.models.model_hub import TOKEN_FIX
from steps.runtime import connection_failure, hosts
from steps.runtime.errors import BadInput, TransientError
from steps.runtime.http_body import read_body
from steps.runtime.retry import RetryPolicy, Sleep, is_transient, retry_after, retry_call

TIMEOUT = (5.0, 20.0)
RETRY = RetryPolicy(max_attempts=3, max_retry_after_seconds=30.0)
MAX_BODY_BYTES = 64 * 2**20
"""Indexes of the largest models have some MiB."""
HUB = "https://huggingface.co"


def endpoint() -> str:
    """Return the address of the hub or of its mirror."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def is_offline() -> bool:
    """Return True if ``HF_HUB_OFFLINE`` forbids requests."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


@dataclass(frozen=True)
class HubResponse:
    """A response with its whole body."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes


def send(method: str, url: str, wait: Sleep = time.sleep, *, redirects: bool = False) -> HubResponse:
    """Send a request, again after transient failures, and return the last response.

    Raises:
        requests.RequestException: there is none.
        BodyTooLarge: its body has more than ``MAX_BODY_BYTES``.
    """
    responses: list[HubResponse] = []

    def attempt() -> None:
        responses.clear()
        with requests.request(
            method,
            url,
            auth=hosts.authentication(url, url) or hosts.anonymous_auth,
            allow_redirects=redirects,
            timeout=TIMEOUT,
            stream=True,
        ) as response:
            responses.append(HubResponse(response.status_code, response.headers, _body(response)))
            if connection_failure.is_transient_status(response.status_code):
                raise TransientError(f"HTTP {response.status_code}", retry_after=retry_after(response))

    with suppress(TransientError):  # the caller evaluates the last response
        retry_call(attempt, RETRY, retry_if=_can_pass, sleep=wait)
    return responses[0]


def hub_error(response: HubResponse, repository: str, revision: str) -> BadInput | None:
    """Return the error that the hub reports; None if the response is not from the hub."""
    code, message = response.headers.get("X-Error-Code", ""), response.headers.get("X-Error-Message", "")
    status, page = response.status_code, f"{endpoint()}/{repository}"
    if not (code or message) or status == 429 or status >= 500:
        return None
    if status == 401 and "credentials" in message.lower():
        return BadInput("the hub rejects the token in HF_TOKEN", f"create a new one: {endpoint()}/settings/tokens")
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


def _body(response: requests.Response) -> bytes:
    try:
        return read_body(response, MAX_BODY_BYTES, decode=True)
    except (HTTPError, TransientError) as error:
        raise requests.ConnectionError(error) from None


def _can_pass(error: Exception) -> bool:
    if isinstance(error, requests.RequestException):
        return not isinstance(error, requests.ConnectTimeout) and not connection_failure.classify(error).is_permanent
    return is_transient(error)
