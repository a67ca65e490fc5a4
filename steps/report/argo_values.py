"""Settings of the report that Argo sets (``workflow.status``, ``workflow.failures``), and the plan as JSON.

The report is written whatever these contain, so unreadable text is accepted here and shown in the report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from steps.report.report_data import Failure, records, text
from steps.runtime import termination
from steps.runtime.json_text import number, parse_json
from steps.runtime.redaction import redact

IMAGE_PULL = "pull-image"
"""Template whose pods only pull an image in advance; a run does not fail with them."""


def parse_status(value: Any) -> Any:
    """Return a status; "" for a placeholder that Argo did not replace."""
    return "" if _is_unset(value) else value


def parse_hours(value: Any) -> float:
    """Return a number of hours; 0 for anything else, which the steps have rejected."""
    return number(value) or 0


def parse_plan(value: Any) -> Any:
    """Return a plan as a mapping, empty for empty text; None for text that is not a JSON mapping.

    The absolute path of a file is returned as it is.
    """
    if not isinstance(value, str):
        return value
    if not value.strip():
        return {}
    if value.startswith("/"):
        return Path(value)
    try:
        # Converting finds a nesting that pydantic cannot serialize.
        plan = to_jsonable_python(parse_json(value))
    except ValueError:
        return None
    return plan if isinstance(plan, dict) else None


def parse_failures(value: Any) -> Any:
    """Return Argo's ``workflow.failures``: a JSON list, quoted twice by some versions; ``null`` if there are none.

    Argo quotes as Go does, which is not always JSON. Such text is returned as the message of a single failure.
    """
    if not isinstance(value, str):
        return value
    if _is_unset(value):
        return ()
    try:
        failures = parse_json(value)
        if isinstance(failures, str):
            failures = parse_json(failures)
        entries = [entry for entry in records(redact(failures)) if entry.get("templateName") != IMAGE_PULL]
        return tuple(_failure(entry) for entry in _without_retry_nodes(entries))
    except ValueError:
        return (Failure(message=redact(value)),)


def _is_unset(value: Any) -> bool:
    return isinstance(value, str) and (not value.strip() or "{{" in value)


def _failure(entry: Mapping[str, Any]) -> Failure:
    return Failure(
        step=text(entry.get("displayName") or entry.get("templateName")),
        phase=text(entry.get("phase")),
        message=termination.parse(text(entry.get("message")))[0],
        when=text(entry.get("finishedAt")),
    )


def _without_retry_nodes(failures: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Replace each Retry node, whose message only reports that retries ended, with its last attempt ``NAME(N)``."""
    entries = [(text(entry.get("displayName")), entry) for entry in failures]
    names = {name for name, _ in entries}
    attempts: dict[str, tuple[int, Mapping[str, Any]]] = {}
    others = []
    for name, entry in entries:
        match = re.fullmatch(r"(.+)\((\d+)\)", name)
        if match and match[1] in names:
            if int(match[2]) >= attempts.get(match[1], (-1, entry))[0]:
                attempts[match[1]] = int(match[2]), entry
        else:
            others.append((name, entry))
    for name, entry in others:
        yield {**attempts[name][1], "displayName": name} if name in attempts else entry
