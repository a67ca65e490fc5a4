"""Queries of URLs, which can grant access, kept out of the document and the state of a run.

``workflow.json`` and ``state.json`` have ``https://host/file?(hidden-1)``. The queries are in
``RUN/url-queries.json``, which only its owner can read, so that an unfinished run can be resumed; a run that succeeds
deletes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from steps.runtime import files
from workflows.errors import InvalidInput, Problem

FILE = "url-queries.json"

# Up to a quote of JSON, also of JSON inside JSON. Too much is harmless: it is restored.
_QUERY = re.compile(r"""([A-Za-z][A-Za-z0-9+.-]*://[^\s"?#]*\?)((?:[^\s"#\\]|\\(?!"))+)""")
_HIDDEN = re.compile(r"\?\((hidden-\d+)\)")


class UrlQueries:
    """The queries of one run, by name."""

    def __init__(self, folder: Path) -> None:
        """Read the queries of the run in ``folder``; there are none if it has no file.

        Raises:
            OSError: the file cannot be read.
            ValueError: it has other content.
        """
        self._file = folder / FILE
        content = self._file.read_text() if self._file.exists() else "{}"
        self._by_name: dict[str, str] = TypeAdapter(dict[str, str]).validate_json(content)
        self._names = {query: name for name, query in self._by_name.items()}
        self._last = max((int(name.rpartition("-")[2]) for name in self._by_name), default=0)

    def hide(self, value: Any) -> Any:
        """Return plain data with names instead of queries; write new queries to the file."""
        known = len(self._names)
        hidden = _map_texts(value, lambda text: _QUERY.sub(self._hide, text) if "://" in text else text)
        if len(self._names) > known:
            files.write_json(self._file, self._by_name, private=True)
        return hidden

    def restore(self, value: Any) -> Any:
        """Return plain data with the queries.

        Raises:
            InvalidInput: a query is missing.
        """
        return _map_texts(value, lambda text: _HIDDEN.sub(self._restore, text) if "?(hidden-" in text else text)

    def keep_only(self, *values: Any) -> None:
        """Delete the queries that plain data does not contain, such as those with a signature that was renewed."""
        used = set(_HIDDEN.findall(json.dumps(self.hide(list(values)))))
        if unused := self._by_name.keys() - used:
            self._by_name = {name: query for name, query in self._by_name.items() if name not in unused}
            self._names = {query: name for name, query in self._by_name.items()}
            files.write_json(self._file, self._by_name, private=True)

    def delete(self) -> None:
        """Delete the file; the run cannot be resumed any more."""
        self._file.unlink(missing_ok=True)

    def _hide(self, match: re.Match[str]) -> str:
        if _HIDDEN.fullmatch(f"?{match[2]}"):  # a run that has lost its file
            return match[0]
        if match[2] not in self._names:
            self._last += 1  # not their number: keep_only can delete earlier ones
            self._names[match[2]] = f"hidden-{self._last}"
        name = self._names[match[2]]
        self._by_name[name] = match[2]
        return f"{match[1]}({name})"

    def _restore(self, match: re.Match[str]) -> str:
        if match[1] not in self._by_name:
            fix = "start a new run"
            raise InvalidInput(Problem("not found: it has the queries of the URLs", path=str(self._file), fix=fix))
        return f"?{self._by_name[match[1]]}"


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(name): _map_texts(inner, change) for name, inner in value.items()}
    if isinstance(value, list):
        return [_map_texts(inner, change) for inner in value]
    return value
