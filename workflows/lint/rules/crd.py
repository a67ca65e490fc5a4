"""Rules of Argo's full CRDs, by which an API server rejects what ``argo lint`` accepts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from workflows.argo import cron
from workflows.argo.artifact import LOCATIONS
from workflows.argo.document import Document, Value, listed, section
from workflows.field_path import join
from workflows.lint.rules.rule import Violation

MAX_MODE = 511
MAX_TEMPLATES = 200
_SCHEDULE = re.compile(
    r"@(yearly|annually|monthly|weekly|daily|midnight|hourly)|@every\s+([0-9]+(ns|us|µs|ms|s|m|h))+"
    r"|([A-Za-z0-9*,/?-]+\s+){4}[A-Za-z0-9*,/?-]+"
)


def crd_value(document: Document) -> Iterator[Violation]:
    """A value that Argo's full CRDs reject: `mode` of an artifact above 511 (0777), `parallelism` below 1, an
    artifact with two locations.
    """
    for path, artifact in _artifacts(document):
        mode = artifact.get("mode")
        if isinstance(mode, int) and not 0 <= mode <= MAX_MODE:
            fix = "write permissions in octal, such as 0755"
            yield Violation(join(path, "mode"), f"{mode} is not a file mode (0 to {MAX_MODE})", fix)
        locations = [name for name in LOCATIONS if name in artifact]
        if len(locations) > 1:
            yield Violation(path, f"{' cannot be combined with '.join(locations)}", "keep one location")
    for path, value in [(document.path, document.spec), *((t.path, t.value) for t in document.templates)]:
        parallelism = value.get("parallelism")
        if isinstance(parallelism, int) and parallelism < 1:
            yield Violation(join(path, "parallelism"), f"{parallelism} is less than 1", "remove it for no limit")


def crd_schedule(document: Document) -> Iterator[Violation]:
    """A schedule has a time zone (`CRON_TZ=`) or another form that Argo reads, but its full CRDs reject."""
    if document.kind == "CronWorkflow":
        for index, text in enumerate(section(document.value, "spec").get("schedules", [])):
            if isinstance(text, str) and not _SCHEDULE.fullmatch(text) and not _schedule_error(text):
                path = join("spec.schedules", index)
                fix = "set spec.timezone instead" if "TZ=" in text else "use five fields, @daily or @every 6h"
                yield Violation(path, f"Argo's full CRDs reject `{text}`", fix)


def _schedule_error(text: str) -> bool:
    try:
        cron.check(text)
    except ValueError:
        return True
    return False


def unquoted_number(document: Document) -> Iterator[Violation]:
    """A parameter has a number, `true` or `false` without quotes: `argo submit` converts it to a string, but with
    Argo's full CRDs `kubectl apply` rejects it.
    """
    for path, parameter in _parameters(document):
        for field in ("value", "default"):
            if isinstance(parameter.get(field), int | float):
                yield Violation(join(path, field), f"{parameter[field]!r} is not a string", "put it in quotes")


def crd_size(document: Document) -> Iterator[Violation]:
    """There are more than 200 templates, or more than 200 tasks in a DAG, which Argo's full CRDs reject."""
    lists = [(join(document.path, "templates"), document.spec.get("templates"))]
    lists += [(f"{t.path}.dag.tasks", section(t.value, "dag").get("tasks")) for t in document.templates]
    for path, items in lists:
        if isinstance(items, list) and len(items) > MAX_TEMPLATES:
            yield Violation(path, f"{len(items)} items (at most {MAX_TEMPLATES})", "use withItems or withParam")


def _artifacts(document: Document) -> Iterator[tuple[str, Value]]:
    yield from listed(section(document.spec, "arguments"), "artifacts", join(document.path, "arguments"))
    for template in document.templates:
        for part in ("inputs", "outputs"):
            yield from template.parts(part, "artifacts")
    for call in document.calls:
        yield from listed(call.arguments, "artifacts", join(call.path, "arguments"))


def _parameters(document: Document) -> Iterator[tuple[str, Value]]:
    yield from listed(section(document.spec, "arguments"), "parameters", join(document.path, "arguments"))
    for template in document.templates:
        for part in ("inputs", "outputs"):
            yield from template.parts(part, "parameters")
    for call in document.calls:
        yield from listed(call.arguments, "parameters", join(call.path, "arguments"))
