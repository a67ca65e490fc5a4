"""Metadata of a model on the hub, without its weights: one request for its list of files, and a few small files."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import requests

from presets.derive import HubMetadata
from steps.models import hub_requests
from steps.models.hub_requests import HubResponse
from steps.runtime import connection_failure
from steps.runtime.errors import BadInput, StepError
from steps.runtime.http_body import BodyTooLarge
from steps.runtime.json_text import parse_json
from steps.runtime.retry import Sleep

COMMIT = re.compile(r"[0-9a-f]{40}")


def read(repository: str, revision: str = "", wait: Sleep = time.sleep) -> HubMetadata:
    """Return the metadata of a model at the commit of a revision; empty: the default branch.

    Raises:
        BadInput: the model, revision or ``config.json`` does not exist, or the hub requires a token.
        StepError: the hub does not respond, or not as a hub does.
    """
    if hub_requests.is_offline():
        raise StepError("the hub cannot be read: HF_HUB_OFFLINE is set", "unset it, or run this on another machine")
    info = _info(repository, revision, wait)
    commit, files = info["sha"], _files(info)
    if "config.json" not in files:
        raise BadInput(f"{repository} is not a model: it has no config.json", "use a model in transformers' format")

    def content(name: str) -> dict[str, Any]:
        return _json_file(repository, commit, name, wait) if name in files else {}

    card = info.get("cardData")
    return HubMetadata(
        repository=repository,
        commit=commit,
        requested=revision,
        config=content("config.json"),
        license=_license(card if isinstance(card, Mapping) else {}, info.get("tags")),
        gated=bool(info.get("gated")),
        tokenizer_config=content("tokenizer_config.json"),
        generation_config=content("generation_config.json"),
        files=files,
        index=content("model.safetensors.index.json"),
        parameters=_parameters(info.get("safetensors")),
    )


def _info(repository: str, revision: str, wait: Sleep) -> dict[str, Any]:
    path = f"/api/models/{repository}" + (f"/revision/{quote(revision, safe='')}" if revision else "")
    info = _parsed(_get(f"{path}?blobs=true", repository, revision or "main", wait), "the model")
    if not isinstance(info.get("sha"), str) or not COMMIT.fullmatch(info["sha"]):
        raise _not_a_hub("it names no commit")
    return info


def _json_file(repository: str, commit: str, name: str, wait: Sleep) -> dict[str, Any]:
    response = _get(f"/{repository}/resolve/{commit}/{name}", repository, commit, wait)
    try:
        return _parsed(response, name)
    except StepError:
        raise BadInput(f"{repository}: {name} is not a JSON object", "use another revision") from None


def _get(path: str, repository: str, revision: str, wait: Sleep) -> HubResponse:
    try:
        response = hub_requests.send("GET", hub_requests.endpoint() + path, wait, redirects=True)
    except requests.RequestException as error:
        failure = connection_failure.classify(error)
        fix = failure.fix or "check the network and HF_ENDPOINT, or run this on a machine that reaches the hub"
        raise StepError(f"the hub {hub_requests.endpoint()} is unreachable: {failure.reason}", fix) from None
    except BodyTooLarge as error:
        raise _not_a_hub(str(error)) from None
    if response.status_code >= 400:
        raise hub_requests.hub_error(response, repository, revision) or _not_a_hub(f"HTTP {response.status_code}")
    return response


def _parsed(response: HubResponse, what: str) -> dict[str, Any]:
    try:
        value = parse_json(response.content)
    except ValueError as error:
        raise _not_a_hub(f"{what}: {error}") from None
    if not isinstance(value, dict):
        raise _not_a_hub(f"{what} is not a JSON object")
    return value


def _not_a_hub(reason: str) -> StepError:
    fix = "check HF_ENDPOINT, and proxies on the way to the hub"
    return StepError(f"{hub_requests.endpoint()} sent an invalid response ({reason})", fix)


def _files(info: Mapping[str, Any]) -> dict[str, int]:
    siblings = info.get("siblings")
    entries = [entry for entry in siblings if isinstance(entry, dict)] if isinstance(siblings, list) else []
    return {
        str(entry["rfilename"]): size if isinstance(size := entry.get("size"), int) and size > 0 else 0
        for entry in entries
        if isinstance(entry.get("rfilename"), str)
    }


def _license(card: Mapping[str, Any], tags: Any) -> str:
    """Return the license's name: of the model card, ``other`` replaced by its own name, otherwise of the tags."""
    named = card.get("license_name") if card.get("license") == "other" else card.get("license")
    if isinstance(named, str) and named:
        return named
    found = (
        [tag for tag in tags if isinstance(tag, str) and tag.startswith("license:")] if isinstance(tags, list) else []
    )
    return found[0].removeprefix("license:") if found else ""


def _parameters(safetensors: Any) -> dict[str, int]:
    given = safetensors.get("parameters") if isinstance(safetensors, dict) else None
    if not isinstance(given, dict):
        return {}
    return {str(kind): count for kind, count in given.items() if isinstance(count, int) and count > 0}
