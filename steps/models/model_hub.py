"""Download of a model's files from the hub with ``huggingface_hub``, which skips cached files.

This adds what the library lacks: a timeout for every request, retries for every request, and the removal of partial
files of killed processes.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.runtime import connection_failure, storage_errors
from steps.runtime.connection_failure import ConnectionFailure
from steps.runtime.errors import BadInput, TransientError
from steps.runtime.json_text import parse_json
from steps.runtime.retry import RetryPolicy, Sleep, retry_after, retry_call

if TYPE_CHECKING:
    from httpx2 import Client, Request

# Files needed for loading, without copies of the weights in other formats.
ALLOW_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
WEIGHTS = ["*.safetensors", "*.safetensors.index.json"]
IGNORE_PATTERNS = ["original/*", "onnx/*"]
CONSOLIDATED = "consolidated*"
"""Weights in Mistral's format, which vLLM's ``load-format: mistral`` reads."""
TOKEN_FIX = (
    "accept its license on the hub, then set a token that can read it: modelAccessSecret in the Workspace (a Secret "
    "with key HF_TOKEN), or HF_TOKEN in the environment"
)
RETRY = RetryPolicy(max_attempts=3)
"""In addition to the library, which retries only some requests."""
READ_TIMEOUT_SECONDS = 60.0
"""For requests that the library sends without a timeout."""
CONNECT_TIMEOUT_SECONDS = 10.0


class HubUnreachable(Exception):
    """The hub does not respond, and the model is not cached."""


def fetch(
    repository: str,
    revision: str,
    *,
    whole: bool,
    consolidated: bool = False,
    patient: bool = False,
    wait: Sleep = time.sleep,
) -> Path:
    """Return the directory of a model's files, after downloading those that are not cached.

    Args:
        repository: Hugging Face id.
        revision: Commit, branch or tag.
        whole: Include the weights.
        consolidated: The weights in Mistral's format instead of those of transformers.
        patient: In a pod, retry for minutes: the caller has no other source.
        wait: Sleeps between attempts.

    Raises:
        BadInput: The repository, revision or weights do not exist, or the hub requires a token.
        OSError: The disk is full, read-only or broken.
        HubUnreachable: The hub does not respond, and the model is not cached.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars, set_client_factory

    disable_progress_bars()
    set_client_factory(_client)
    ignored = [*IGNORE_PATTERNS, *(["model*.safetensors*"] if consolidated else [CONSOLIDATED])]
    ignored += [] if whole else WEIGHTS
    policy = RETRY.in_pod() if patient else RETRY
    is_lasting = policy.max_attempts > RETRY.max_attempts

    def attempt() -> Path:
        offline = ConnectionFailure("HF_HUB_OFFLINE is set", "unset it") if constants.HF_HUB_OFFLINE else None
        offline = offline or _probe(constants.ENDPOINT)
        try:
            return _snapshot(repository, revision, ignored, offline.reason if offline else "")
        except HubUnreachable as error:
            if is_lasting and offline and not offline.is_permanent:
                raise TransientError(str(error)) from None
            raise

    try:
        folder = retry_call(
            attempt,
            policy,
            log=lambda line: print(f"model hub: {line}", flush=True),
            sleep=wait,
        )
    except TransientError as error:
        raise HubUnreachable(error.message) from None
    if whole:
        _check_complete(folder, repository, consolidated)
    return folder


def _client() -> Client:
    """Return the library's client with a timeout for every request."""
    from huggingface_hub.utils._http import default_client_factory

    client: Client = default_client_factory()
    client.event_hooks["request"].append(_set_timeout)
    return client


def _set_timeout(request: Request) -> None:
    timeouts = request.extensions.get("timeout") or {}
    limits = {kind: timeouts.get(kind) or READ_TIMEOUT_SECONDS for kind in ("connect", "read", "write", "pool")}
    request.extensions = {**request.extensions, "timeout": limits}


def _probe(endpoint: str) -> ConnectionFailure | None:
    """Return why the hub is unreachable, if it is. The library would take half a minute to notice."""
    import requests

    failure = None
    for _ in range(2):
        try:
            requests.head(endpoint, timeout=CONNECT_TIMEOUT_SECONDS)
            return None
        except requests.RequestException as error:
            cause = connection_failure.classify(error)
            failure = dataclasses.replace(cause, reason=f"{endpoint}: {cause.reason}")
            if failure.is_permanent or isinstance(error, requests.ConnectTimeout):
                break
    return failure


def _snapshot(repository: str, revision: str, ignored: list[str], offline_reason: str) -> Path:
    """Return the snapshot's directory; with an ``offline_reason`` only from the cache."""
    from huggingface_hub import constants, errors, snapshot_download

    try:
        _remove_partial_files(repository)
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=ALLOW_PATTERNS,
                ignore_patterns=ignored,
                local_files_only=bool(offline_reason),
            )
        )
    except errors.GatedRepoError:
        message = f"{repository} is gated: the hub requires a token of a user who has accepted its license"
        raise BadInput(message, TOKEN_FIX) from None
    except errors.RevisionNotFoundError:
        message = f"{repository}: revision {revision} not found"
        raise BadInput(message, "use a branch, a tag or a full commit") from None
    except errors.RepositoryNotFoundError:
        raise BadInput(
            f"{repository} not found on the hub, or not visible without a token",
            f"check the name; if it is private or gated: {TOKEN_FIX}",
        ) from None
    except errors.HFValidationError as error:
        message = f"{repository!r} is not a Hugging Face id: {error}"
        raise BadInput(message, "use owner/name, or a directory") from None
    except (errors.LocalEntryNotFoundError, errors.HTTPError, OSError) as error:
        if storage_errors.is_storage_error(error):
            raise
        _raise_if_rejected(error, f"{repository} at {revision} from {constants.ENDPOINT}")
        if offline_reason:
            raise HubUnreachable(offline_reason) from None
        raise _classify(error) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, AssertionError) as error:
        # The library does not check what it receives.
        reason = f"{constants.ENDPOINT} sent an invalid response ({type(error).__name__})"
        raise HubUnreachable(reason) from None


def _remove_partial_files(repository: str) -> None:
    """Remove partial files that no process is writing: the library never resumes them.

    A process that downloads a file has its lock.
    """
    from filelock import FileLock, Timeout
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache, folder = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=repository, repo_type="model")
    for part in (cache / folder / "blobs").glob("*.incomplete"):
        etag = part.stem.rpartition(".")[0]
        with suppress(Timeout, OSError, NotImplementedError), FileLock(cache / ".locks" / folder / f"{etag}.lock", 0):
            part.unlink(missing_ok=True)


def _raise_if_rejected(error: BaseException, source: str) -> None:
    """Raise BadInput if the hub itself rejected the request.

    The hub sets a header. A proxy that blocks the hub returns the same statuses without it.
    """
    for response in _responses(error):
        if not {"x-error-code", "x-error-message"} & {key.lower() for key in response.headers}:
            continue
        if response.status_code in (401, 403):
            raise BadInput(f"the hub denies access to {source} (status {response.status_code})", TOKEN_FIX) from None
        if response.status_code == 404:
            raise BadInput(f"{source} not found (status 404)", "check the name and the revision") from None


def _classify(error: BaseException) -> TransientError | HubUnreachable:
    """Return the kind of failure: connection errors are transient, responses by their status."""
    responses = list(_responses(error))
    if any(not connection_failure.is_transient_status(response.status_code) for response in responses):
        return HubUnreachable(_reason(error))
    if not responses and connection_failure.classify(error).is_permanent:
        return HubUnreachable(_reason(error))
    waits = [seconds for response in responses if (seconds := retry_after(response)) is not None]
    return TransientError(_reason(error), retry_after=max(waits, default=None))


def _responses(error: BaseException | None) -> Iterator[Any]:
    """Yield the HTTP responses of an error and its causes."""
    while error is not None:
        if (response := getattr(error, "response", None)) is not None:
            yield response
        error = error.__cause__


def _reason(error: BaseException) -> str:
    """Return the innermost cause in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _check_complete(folder: Path, repository: str, consolidated: bool) -> None:
    """Check for all weight files: without a hub, a partial snapshot can be returned from the cache.

    Raises:
        BadInput: The model has no weights in safetensors format.
        HubUnreachable: Cached files are missing.
    """
    index = folder / f"{'consolidated' if consolidated else 'model'}.safetensors.index.json"
    if index.is_file():
        weights = {folder / name for name in indexed_files(index, repository)}
    else:
        other = set(folder.glob(f"{CONSOLIDATED}.safetensors"))
        weights = other if consolidated else set(folder.glob("*.safetensors")) - other
    configs = ("config.json", "params.json") if consolidated else ("config.json",)
    if not weights or not any((folder / name).is_file() for name in configs):
        kind = "consolidated*.safetensors, which load-format mistral needs" if consolidated else "safetensors format"
        fix = "remove load-format: mistral" if consolidated else "use a model in safetensors format"
        raise BadInput(f"{repository} has no weights in {kind}", fix)
    if missing := sorted(path.name for path in weights if not path.is_file()):
        raise HubUnreachable(f"missing in the cache: {', '.join(missing)}")


def indexed_files(index: Path, repository: str) -> set[str]:
    """Return the names of the weight files in an index.

    Raises:
        BadInput: It is damaged, or names files outside the model.
    """
    try:
        names = set(parse_json(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        names = {None}
    if not all(isinstance(name, str) and re.fullmatch(r"[\w.-]{1,200}", name) for name in names):
        fix = "download the model again, or use another revision"
        raise BadInput(f"{repository}: {index.name} is not an index of weights", fix)
    return names
