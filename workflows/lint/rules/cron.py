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
    """A CronWorkflow has no schedule, or a schedule that is not five cron fields, a name such as `@daily`, or an
    interval such as `@every 1h`.
    """
    if document.kind != "CronWorkflow":
        return
    schedules = section(document.value, "spec").get("schedules")
    if schedules == []:
        yield Violation(
            "spec.schedules", "schedules is empty, so that it never runs", 'add one, such as ["0 3 * * 0"]'
        )
    for index, text in enumerate(schedules or []):
        try:
            cron.check(text)
        except ValueError as error:
            yield Violation(
                join("spec.schedules", index),
                f"`{text}`: {error}",
                "use e.g. 30 3 * * 1-5, @daily or @every 6h",
            )


def timezone(document: Document) -> Iterator[Violation]:
    """`timezone` or the `CRON_TZ=` of a schedule is not a time zone of the IANA database."""
    if document.kind != "CronWorkflow":
        return
    spec = section(document.value, "spec")
    zones = [("spec.timezone", str(spec.get("timezone", "")))]
    zones += [(join("spec.schedules", index), cron.zone(text)) for index, text in enumerate(spec.get("schedules", []))]
    for path, name in zones:
        if name and _zones() and name not in _zones() and name not in _GO_ZONES:
            yield Violation(path, f"unknown time zone `{name}`", _suggest_zone(name))


def _suggest_zone(name: str) -> str:
    near = unknown(name, _zones())
    return near if near.startswith("did you mean") else "use a zone such as Etc/UTC or Europe/Paris"


@cache
def _zones() -> frozenset[str]:
    """Return the time zones; empty when this machine has no time zone database, so that none is rejected."""
    return frozenset(zoneinfo.available_timezones())
