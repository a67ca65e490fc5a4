"""Metrics (Argo: ``workflow/metrics/util.go``)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from workflows.argo.document import Document, listed, section
from workflows.field_path import join
from workflows.lint.rules.rule import Violation

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def metric(document: Document) -> Iterator[Violation]:
    """A metric has an invalid Prometheus name or label, no `help`, no value, or not exactly one of `counter`, `gauge`,
    `histogram`; or a realtime gauge uses `resourcesDuration`, which is known only at the end.
    """
    owners = [(document.path, document.spec), *((template.path, template.value) for template in document.templates)]
    for owner, value in owners:
        for path, metric in listed(section(value, "metrics"), "prometheus", join(owner, "metrics")):
            name = str(metric.get("name", ""))
            if "{{" not in name and not _NAME.fullmatch(name):
                yield Violation(
                    join(path, "name"), f"`{name}` is not a valid metric name", "use letters, digits and _"
                )
            if "help" in metric and not metric["help"]:
                yield Violation(join(path, "help"), f"help of metric `{name}` is empty", "describe the metric")
            for label, pair in listed(metric, "labels", path):
                key = str(pair.get("key", ""))
                if not _NAME.fullmatch(key):
                    yield Violation(join(label, "key"), f"invalid label name `{key}`", "use letters, digits and _")
            kinds = [kind for kind in ("counter", "gauge", "histogram") if kind in metric]
            if len(kinds) != 1:
                message = f"{' cannot be combined with '.join(kinds)}" if kinds else "the metric has no type"
                yield Violation(path, message, "set exactly one of counter, gauge, histogram")
            for kind in kinds:
                text = str(section(metric, kind).get("value", ""))
                if "value" in section(metric, kind) and not text:
                    yield Violation(
                        join(path, kind), f"value of the {kind} is empty", "set value, such as '1' or '{{duration}}'"
                    )
                if section(metric, kind).get("realtime") and "resourcesDuration." in text:
                    yield Violation(join(path, kind), "resourcesDuration is known only at the end", "remove realtime")
