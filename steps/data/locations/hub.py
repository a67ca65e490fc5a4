"""Datasets of the Hugging Face hub: the commit of a revision, its files, and those of a config and split.

Routes, as in huggingface_hub: ``/api/datasets/ID/revision/REV`` (commit), ``/api/datasets/ID/tree/REV/PATH`` (files),
``/datasets/ID/resolve/REV/PATH`` (content). ``HF_ENDPOINT`` is a mirror; ``HF_TOKEN`` opens private datasets.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote, urljoin

from steps.data.locations import hub_splits, patterns
from steps.data.locations.http_file import HttpFile
from steps.data.locations.location import HubLocation
from steps.data.locations.remote_file import FileState
from steps.runtime import hosts
from steps.runtime.errors import BadInput
from steps.runtime.http_body import BodyTooLarge, read_body
from steps.runtime.json_text import parse_json

MAX_JSON_BYTES = 64 << 20
MAX_CARD_BYTES = 1 << 20
MAX_PAGES = 10_000
"""Pages of a list of files, of up to 1000 files each; a server that always names another page does not end."""
CONVERTED = "refs/convert/parquet"
"""Revision with the hub's own conversion to parquet, as CONFIG/SPLIT/NNNN.parquet."""


def endpoint() -> str:
    """Return the URL of the hub."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def pin(location: HubLocation, allow_private: bool) -> HubLocation:
    """Return the location with its revision resolved to a commit.

    Raises:
        BadInput: unknown dataset or revision, or no access.
        TransientError: the hub is unreachable.
    """
    api = f"{endpoint()}/api/datasets/{location.dataset}/revision/{quote(location.revision, safe='')}"
    (found, _) = _get_json(api, location.shown, allow_private)
    commit = found.get("sha") if isinstance(found, dict) else None
    if not isinstance(commit, str) or not commit:
        raise BadInput(f"{location.shown}: the hub reports no commit", "check HF_ENDPOINT")
    return dataclasses.replace(location, revision=commit)


def list_files(location: HubLocation, allow_private: bool, *, converted: bool = False) -> tuple[bool, list[str]]:
    """Return True if a pinned location is one file, and the paths of its files, or of those in its folder.

    Args:
        location: pinned location; its path can be a pattern.
        allow_private: allow private addresses.
        converted: the revision is the hub's conversion to parquet.

    Raises:
        BadInput: no such path, config or split; or no access.
        TransientError: the hub is unreachable.
    """
    path = location.path
    if patterns.is_pattern(path):
        return False, list(_list_tree(location, patterns.literal_folder(path), allow_private))
    if path:
        parent = path.rpartition("/")[0]
        if path in _list_tree(location, parent, allow_private, recursive=False):
            return True, [path]
        return False, list(_list_tree(location, path, allow_private))
    names = list(_list_tree(location, "", allow_private))
    if converted:
        return False, hub_splits.select_converted(names, location)
    return False, hub_splits.select_files(_read_card(location, names, allow_private), names, location)


def file(location: HubLocation, path: str, allow_private: bool) -> HttpFile:
    """Return a file of a pinned location."""
    shown = dataclasses.replace(location, path=path).shown
    url = f"{endpoint()}/datasets/{location.dataset}/resolve/{location.revision}/{quote(path)}"
    return HttpFile(url, shown, allow_private)


def _list_tree(location: HubLocation, folder: str, allow_private: bool, *, recursive: bool = True) -> Iterator[str]:
    """Yield the paths of the files of a folder, page by page."""
    url = f"{endpoint()}/api/datasets/{location.dataset}/tree/{location.revision}"
    url += f"/{quote(folder)}" if folder else ""
    url += f"?recursive={'true' if recursive else 'false'}&expand=false"
    for _ in range(MAX_PAGES):
        entries, following = _get_json(url, location.shown, allow_private)
        if not isinstance(entries, list) or not all(map(_is_entry, entries)):
            raise BadInput(f"{location.shown}: the hub sent no list of files", "check HF_ENDPOINT")
        yield from (entry["path"] for entry in entries if entry.get("type") == "file")
        if not following:
            return
        if hosts.origin(following) != hosts.origin(url):
            raise BadInput(f"{location.shown}: the list of files continues on another host", "check HF_ENDPOINT")
        url = following
    raise BadInput(f"{location.shown}: the list of files has more than {MAX_PAGES} pages", "use the path of a folder")


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and (entry.get("type") != "file" or isinstance(entry.get("path"), str))


def _read_card(location: HubLocation, files: Sequence[str], allow_private: bool) -> str:
    """Return the text of README.md, whose header defines configs and splits."""
    if "README.md" not in files:
        return ""
    content = bytearray()
    with file(location, "README.md", allow_private).open(0, FileState()) as card:
        while (part := card.read()) and len(content) < MAX_CARD_BYTES:
            content += part
    return content.decode(errors="replace")


def _get_json(url: str, shown: str, allow_private: bool) -> tuple[Any, str]:
    """Return the JSON of a response, and the URL of its next page."""
    page = HttpFile(url, shown, allow_private)
    with page.respond({}) as response:
        page.check_status(response)
        try:
            body = read_body(response, MAX_JSON_BYTES, decode=True)
        except BodyTooLarge as error:
            raise BadInput(f"{shown}: the response of the hub has {error}", "check HF_ENDPOINT") from None
        following = response.links.get("next", {}).get("url", "")
    try:
        following = urljoin(url, following) if following else ""
        hosts.origin(following)
    except ValueError as error:
        raise BadInput(f"{shown}: the hub sent an invalid link to the next page", "check HF_ENDPOINT") from error
    try:
        return parse_json(body), following
    except ValueError as error:
        raise BadInput(f"{shown}: the hub sent no JSON", "check HF_ENDPOINT") from error
