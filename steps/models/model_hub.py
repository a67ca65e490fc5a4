"""A model's files from the hub, by ``huggingface_hub``, which fetches those that the cache lacks.

What it leaves out is here: it waits without end for some answers, gives up at the first trouble with others, and what
a killed process had of a file stays beside the others for ever.
"""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.runtime.errors import BadInput, TransientError
from steps.runtime.retry import RetryPolicy, Sleep, retry_after, retry_call

if TYPE_CHECKING:
    from httpx2 import Client, Request

# What loading needs. Left out are copies of the same weights in other formats.
WANTED = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
WEIGHTS = ["*.safetensors", "*.safetensors.index.json"]
UNWANTED = ["original/*", "onnx/*", "consolidated*"]
TOKEN_FIX = (
    "accept its licence on the hub, then give a token that may read it: modelAccessSecret in the Workspace (a Secret "
    "with key HF_TOKEN), or HF_TOKEN in the environment"
)
RETRY = RetryPolicy(max_attempts=3)
"""In addition to the library's own retries of some calls."""
ANSWER_SECONDS = 60.0
"""For an answer that the library would wait for without end."""
CONNECT_TIMEOUT_SECONDS = 10.0
MAY_PASS = (408, 429, 500, 502, 503, 504)


class HubUnreachable(Exception):
    """The hub doesn't answer, and the cache doesn't have the model."""


def fetch(repository: str, revision: str, *, whole: bool, wait: Sleep = time.sleep) -> Path:
    """The folder of a model's files at a revision, fetched as far as the cache lacks them; not ``whole``: no weights.

    Raises:
        BadInput: no such repository or revision, no weights, or the hub wants a token that may read it.
        OSError: the disk is full.
        HubUnreachable: why it can't be had from here now.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars, set_client_factory

    disable_progress_bars()
    set_client_factory(_client)
    silence = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _silence(constants.ENDPOINT)
    try:
        folder = retry_call(
            lambda: _snapshot(repository, revision, whole, here_only=silence),
            RETRY,
            log=lambda line: print(f"the hub: {line}", flush=True),
            sleep=wait,
        )
    except TransientError as error:
        raise HubUnreachable(error.message) from None
    if whole:
        _check_whole(folder, repository)
    return folder


def _client() -> Client:
    """The library's client, which asks with a time limit always."""
    from huggingface_hub.utils._http import default_client_factory

    client: Client = default_client_factory()
    client.event_hooks["request"].append(_limit)
    return client


def _limit(request: Request) -> None:
    given = request.extensions.get("timeout") or {}
    limits = {kind: given.get(kind) or ANSWER_SECONDS for kind in ("connect", "read", "write", "pool")}
    request.extensions = {**request.extensions, "timeout": limits}


def _silence(endpoint: str) -> str:
    """Why the hub can't be reached; empty when it answers. The library itself would try for half a minute."""
    import requests

    said = ""
    for _ in range(2):
        try:
            requests.head(endpoint, timeout=CONNECT_TIMEOUT_SECONDS)
            return ""
        except requests.RequestException as error:
            said = f"{endpoint}: {type(error).__name__}"
            if isinstance(error, requests.ConnectTimeout):
                break
    return said


def _snapshot(repository: str, revision: str, whole: bool, here_only: str) -> Path:
    from huggingface_hub import constants, errors, snapshot_download

    try:
        _clear(repository)
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=WANTED,
                ignore_patterns=UNWANTED if whole else [*UNWANTED, *WEIGHTS],
                local_files_only=bool(here_only),
            )
        )
    except errors.GatedRepoError:
        raise BadInput(
            f"{repository} is gated: the hub wants a token that has accepted its licence", TOKEN_FIX
        ) from None
    except errors.RevisionNotFoundError:
        raise BadInput(f"{repository} has no revision {revision}", "give a branch, a tag or a whole commit") from None
    except errors.RepositoryNotFoundError:
        raise BadInput(
            f"the hub has no {repository}, or doesn't show it without a token",
            f"check the name; if it is private or gated: {TOKEN_FIX}",
        ) from None
    except errors.HFValidationError as error:
        raise BadInput(f"{repository!r} is no Hugging Face id: {error}", "write owner/name, or a folder") from None
    except (errors.LocalEntryNotFoundError, errors.HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        _refused(error, f"{repository} at {revision} from {constants.ENDPOINT}")
        if here_only:
            raise HubUnreachable(here_only) from None
        raise _failure(error) from None


def _clear(repository: str) -> None:
    """Remove parts of files that nobody writes any more: the library goes on with none, and names each try anew.

    Whoever fetches a file holds its lock.
    """
    from filelock import FileLock, Timeout
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache, folder = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=repository, repo_type="model")
    for part in (cache / folder / "blobs").glob("*.incomplete"):
        etag = part.stem.rpartition(".")[0]
        with suppress(Timeout, OSError, NotImplementedError), FileLock(cache / ".locks" / folder / f"{etag}.lock", 0):
            part.unlink(missing_ok=True)


def _refused(error: BaseException, what: str) -> None:
    """Raise if behind an error is the hub's own no.

    It names it in a header. A proxy that lets nobody out answers with the same numbers, but without it.
    """
    for response in _responses(error):
        if not {"x-error-code", "x-error-message"} & {key.lower() for key in response.headers}:
            continue
        if response.status_code in (401, 403):
            raise BadInput(f"the hub refuses {what} (status {response.status_code})", TOKEN_FIX) from None
        if response.status_code == 404:
            raise BadInput(f"the hub has no {what} (status 404)", "check the name and the revision") from None


def _failure(error: BaseException) -> TransientError | HubUnreachable:
    """What an error means that is no refusal: of a connection it may pass, of an answer by its status."""
    answers = list(_responses(error))
    if any(response.status_code not in MAY_PASS for response in answers):
        return HubUnreachable(_reason(error))
    waits = [seconds for response in answers if (seconds := retry_after(response)) is not None]
    return TransientError(_reason(error), retry_after=max(waits, default=None))


def _responses(error: BaseException | None) -> Iterator[Any]:
    """Answers that an error, or what it came from, is about."""
    while error is not None:
        if (response := getattr(error, "response", None)) is not None:
            yield response
        error = error.__cause__


def _reason(error: BaseException) -> str:
    """The innermost cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _check_whole(folder: Path, repository: str) -> None:
    """A snapshot that was fetched in part may be found again without a hub; models without safetensors are refused."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = {folder / name for name in json.loads(index.read_text())["weight_map"].values()}
    else:
        named = set(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not named:
        raise BadInput(f"{repository} has no weights in safetensors format", "use a model that has")
    if missing := sorted(path.name for path in named if not path.is_file()):
        raise HubUnreachable(f"of the cached copy these files are missing: {', '.join(missing)}")
