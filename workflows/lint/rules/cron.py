"""Schedules and time zones of CronWorkflows (Argo: ``validate.CronWorkflow``)."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from functools import cache

from workflows.argo import cron
from workflows.argo.document import Document, section
from workflows.field_path import join
from workflows.lint.rules.rule import Violation
from workflows.spec.findings import unknown

_GO_ZONES = ("UTC", "Local")


def cron_schedule(document: Document) -> Iterator[Violation]:
    """A CronWorkflow has no schedule, or one that is not five fields of cron, `@daily` and the like, or `@every
    1h`.
    """
    if document.kind != "CronWorkflow":
        return
    schedules = section(document.value, "spec").get("schedules")
    if schedules == []:
        yield Violation(
            "spec.schedules", "the list is empty, so that it never runs", 'as in: schedules: ["0 3 * * 0"]'
        )
    for index, text in enumerate(schedules or []):
        try:
            cron.check(text)
        except ValueError as error:
            yield Violation(
                join("spec.schedules", index), f"`{text}`: {error}", "as in: 30 3 * * 1-5, @daily, @every 6h"
            )


def timezone(document: Document) -> Iterator[Violation]:
    """`timezone`, or the `CRON_TZ=` of a schedule, is not a zone of the IANA database."""
    if document.kind != "CronWorkflow":
        return
    spec = section(document.value, "spec")
    places = [("spec.timezone", str(spec.get("timezone", "")))]
    places += [
        (join("spec.schedules", index), cron.zone(text)) for index, text in enumerate(spec.get("schedules", []))
    ]
    for path, name in places:
        if name and _zones() and name not in _zones() and name not in _GO_ZONES:
            yield Violation(path, f"there is no time zone `{name}`", _instead(name))


def _instead(name: str) -> str:
    near = unknown(name, _zones())
    return near if near.startswith("did you mean") else "write one such as Etc/UTC or Europe/Paris"


@cache
def _zones() -> frozenset[str]:
    """Empty where this machine has no time zone database: then nothing can be said."""
    return frozenset(zoneinfo.available_timezones())
