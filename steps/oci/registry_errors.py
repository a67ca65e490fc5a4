"""Errors of registries, with instructions to fix them."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from steps.oci.credentials import config_files
from steps.oci.reference import Reference
from steps.runtime import connection_failure
from steps.runtime.errors import BadInput, StepError, TransientError
from steps.runtime.http_body import BodyTooLarge, iter_body, read_body
from steps.runtime.json_text import parse_json
from steps.runtime.retry import retry_after

INSECURE = "ARGOTUNE_INSECURE_REGISTRIES"
AZURE_PUSH = "AcrPush (on a registry with ABAC: Container Registry Repository Writer)"
AZURE_PULL = "AcrPull (on a registry with ABAC: Container Registry Repository Reader)"
TIMEOUT = (10.0, 120.0)
"""Seconds to connect, and to wait for the next bytes."""
MAX_TOKEN_BYTES = 1024 * 1024


class TooLarge(StepError):
    """The request body exceeds the limit of the registry or of a proxy in front of it."""


class TagImmutable(BadInput):
    """The tag exists and cannot be moved."""


def from_response(
    response: requests.Response, reference: Reference, *, push: bool, known: bool, azure: bool = False
) -> StepError:
    """Return the error for an unexpected response.

    ``push`` is False for a pull; ``known`` means that credentials were sent, ``azure`` that they are those of an Azure
    identity.
    """
    registry, status = reference.registry, response.status_code
    detail = f"HTTP {status}{_details(response)}"
    if connection_failure.is_transient_status(status):
        return TransientError(f"{registry} returned {detail}", "run it again later", retry_after(response))
    if status == connection_failure.PROXY_LOGIN:
        failure = connection_failure.from_proxy(status)
        return BadInput(f"{registry} cannot be reached: {failure.reason}", failure.fix)
    if status in (401, 403):
        return _denied(detail, reference, push, known, azure)
    if status == 404:
        missing, fix = (
            (f"repository {reference.name}", "create the repository") if push else (str(reference), "push it")
        )
        return BadInput(f"{registry} has no {missing}: {detail}", f"check the name, or {fix} first")
    if status == 413:
        fix = "increase the body limit of the proxy in front of it (nginx: client_max_body_size)"
        return TooLarge(f"{registry} accepts no blob of this size: {detail}", fix)
    if status in (405, 409, 412) or re.search(r"(?i)immutab|disallow|locked", detail):
        return _tag_immutable(detail, reference)
    request = f"{response.request.method} {urlsplit(str(response.url)).path}"
    return StepError(f"{registry} rejected {request}: {detail}", "check the registry's log")


def from_connection_error(error: Exception, registry: str) -> StepError:
    """Return the error for a failed connection, without URLs, which can be signed."""
    failure = connection_failure.classify(error)
    if failure.is_tls:
        fix = f"set REQUESTS_CA_BUNDLE to its certificate authority; for plain http list it in {INSECURE}"
        return StepError(f"no TLS connection to {registry}: {failure.reason}", fix)
    if failure.is_permanent:
        return BadInput(f"{registry} cannot be reached: {failure.reason}", failure.fix)
    fix = f"check that {registry} is up and reachable from this machine"
    return TransientError(f"{registry} cannot be reached: {failure.reason}", fix)


def read_json(response: requests.Response) -> Any:
    """Return the JSON of a token server.

    Raises:
        ValueError: it is not JSON, cannot be read, or is larger than ``MAX_TOKEN_BYTES``, also after unpacking.
    """
    try:
        with response:
            content = read_body(response, MAX_TOKEN_BYTES, decode=True)
    except BodyTooLarge as error:
        raise ValueError(str(error)) from None
    except (requests.RequestException, HTTPError, TransientError) as error:
        raise ValueError(connection_failure.classify(error).reason) from None
    return parse_json(content)


def _denied(detail: str, reference: Reference, push: bool, known: bool, azure: bool) -> BadInput:
    registry = reference.registry
    sent = "these credentials" if known else "a client without credentials"
    verb = "push to" if push else "pull from"
    if azure and known:
        return BadInput(
            f"{registry} does not allow the Azure identity of this step to {verb} {reference.name}: {detail}",
            f"assign it the role {AZURE_PUSH if push else AZURE_PULL} on the registry",
        )
    paths = " and ".join(str(file) for file in config_files())
    return BadInput(
        f"{registry} does not allow {sent} to {verb} {reference.name}: {detail}",
        f"searched for credentials in {paths} ({'found' if known else 'none found'} for {registry}): log in with"
        f" `docker login {registry}`, or mount a secret with permission to {verb} it and set DOCKER_CONFIG",
    )


def _tag_immutable(detail: str, reference: Reference) -> TagImmutable:
    """Return the error for a locked tag: ACR responds with 405, Harbor 412, ECR 400 (TAG_INVALID ... immutable)."""
    return TagImmutable(
        f"{reference.registry} does not allow writing {reference}: {detail}",
        "the tag or the whole repository is locked or immutable: use a new tag, or unlock it (on ACR: az acr"
        f" repository update --name {reference.registry.partition('.')[0]} --image"
        f" {reference.repository}:{reference.tag or 'latest'} --write-enabled true)",
    )


def _details(response: requests.Response) -> str:
    """Return the messages of the error body (distribution-spec, "Error Codes")."""
    try:
        errors = parse_json(next(iter_body(response, decode=True), b""))["errors"]
        text = "; ".join(f"{e.get('code', '')}: {e.get('message', '')}" for e in errors)
    except (requests.RequestException, HTTPError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f" {text[:300]}" if text else ""
