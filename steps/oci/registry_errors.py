"""What can go wrong between us and a registry, said so that the user can mend it."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import requests

from steps.oci.credentials import config_files
from steps.oci.reference import Reference
from steps.runtime.errors import BadInput, StepError, TransientError
from steps.runtime.retry import retry_after

INSECURE = "ARGOTUNE_INSECURE_REGISTRIES"
AZURE_PUSH = "AcrPush (of a registry with ABAC: Container Registry Repository Writer)"
AZURE_PULL = "AcrPull (of a registry with ABAC: Container Registry Repository Reader)"
TIMEOUT = (10.0, 120.0)
"""Seconds to connect, and to wait for the next bytes."""


class TooLarge(StepError):
    """A body is larger than the registry, or a proxy before it, takes."""


class TagImmutable(BadInput):
    """A tag stays where it is."""


def refused(
    response: requests.Response, reference: Reference, *, push: bool, known: bool, azure: bool = False
) -> StepError:
    """The error for an answer that is not what was asked for.

    ``push`` says what was tried, ``known`` whether there were credentials to send, ``azure`` that they are those of
    an Azure identity.
    """
    registry, status = reference.registry, response.status_code
    detail = f"HTTP {status}{_details(response)}"
    if status in (408, 429) or status >= 500:
        return TransientError(f"{registry} answers {detail}", "run it again later", retry_after(response))
    if status in (401, 403):
        return _denied(detail, reference, push, known, azure)
    if status == 404:
        what, fix = (f"repository {reference.name}", "create the repository") if push else (str(reference), "push it")
        return BadInput(f"{registry} does not know {what}: {detail}", f"check the name, or {fix} first")
    if status == 413:
        fix = "raise the body limit of the proxy before it (nginx: client_max_body_size)"
        return TooLarge(f"{registry} takes no blob of this size: {detail}", fix)
    if status in (405, 409, 412) or re.search(r"(?i)immutab|disallow|locked", detail):
        return _locked(detail, reference)
    asked = f"{response.request.method} {urlsplit(str(response.url)).path}"
    return StepError(f"{registry} refused {asked}: {detail}", "see the registry's log")


def lost(error: requests.RequestException, registry: str) -> StepError:
    """The error for a connection that could not be made or kept; without addresses, which may be signed."""
    text = _cause(error)
    if isinstance(error, requests.exceptions.SSLError):
        return StepError(
            f"no TLS connection to {registry}: {text}",
            f"set REQUESTS_CA_BUNDLE to its certificate authority; for plain http list it in {INSECURE}",
        )
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return BadInput(f"{registry} is no address: {text}", "check the image reference")
    return TransientError(
        f"{registry} cannot be reached: {text}", f"check that {registry} is up and can be reached from here"
    )


def _denied(detail: str, reference: Reference, push: bool, known: bool, azure: bool) -> BadInput:
    registry = reference.registry
    sent = "these credentials" if known else "a client without credentials"
    verb = "push to" if push else "pull from"
    if azure and known:
        return BadInput(
            f"{registry} does not let the Azure identity of this step {verb} {reference.name}: {detail}",
            f"give it the role {AZURE_PUSH if push else AZURE_PULL} on the registry",
        )
    where = " and ".join(str(file) for file in config_files())
    return BadInput(
        f"{registry} does not let {sent} {verb} {reference.name}: {detail}",
        f"credentials were looked for in {where} ({'found' if known else 'none found'} for {registry}): log in with"
        f" `docker login {registry}`, or mount a secret that may {verb} it and set DOCKER_CONFIG to its folder",
    )


def _locked(detail: str, reference: Reference) -> TagImmutable:
    """ACR answers 405 where image or repository is locked, Harbor 412, ECR 400 with TAG_INVALID ... immutable."""
    return TagImmutable(
        f"{reference.registry} does not let {reference} be written: {detail}",
        "the tag, or the whole repository, is locked or immutable: give a new tag, or unlock it (of ACR: az acr"
        f" repository update --name {reference.registry.partition('.')[0]} --image"
        f" {reference.repository}:{reference.tag or 'latest'} --write-enabled true)",
    )


def _details(response: requests.Response) -> str:
    """What the registry says in its error body (distribution-spec, "Error Codes")."""
    try:
        errors = json.loads(next(response.iter_content(16384), b""))["errors"]
        text = "; ".join(f"{e.get('code', '')}: {e.get('message', '')}" for e in errors)
    except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f" {text[:300]}" if text else ""


def _cause(error: BaseException) -> str:
    """Innermost reason of a chain of wrapped connection errors."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((a for a in error.args if isinstance(a, BaseException)), None)
        if inner is None:
            break
        error = inner
    text = str(getattr(error, "strerror", None) or error or type(error).__name__)
    return re.sub(r"^<[^>]*>:?\s*|^\w+ConnectionPool\([^)]*\):\s*|^\w+Connection\([^)]*\):\s*", "", text)
