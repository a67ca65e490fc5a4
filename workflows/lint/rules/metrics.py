"""Metrics (Argo: ``workflow/metrics/util.go``)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from workflows.argo.document import Document, listed, section
from workflows.field_path import join
from workflows.lint.rules.rule import Violation

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def metric(document: Document) -> Iterator[Violation]:
    """A metric has a name or label that Prometheus does not take, no `help`, no value, or none or several of
    `counter`, `gauge`, `histogram`; or a realtime gauge shows `resourcesDuration`, which is known only at the
    end.
    """
    places = [(document.path, document.spec), *((template.path, template.value) for template in document.templates)]
    for around, value in places:
        for path, found in listed(section(value, "metrics"), "prometheus", join(around, "metrics")):
            name = str(found.get("name", ""))
            if "{{" not in name and not _NAME.fullmatch(name):
                yield Violation(join(path, "name"), f"`{name}` is not a name of a metric", "use letters, digits and _")
            if "help" in found and not found["help"]:
                yield Violation(
                    join(path, "help"), f"metric `{name}` has an empty help", "say in a sentence what it counts"
                )
            for label, pair in listed(found, "labels", path):
                key = str(pair.get("key", ""))
                if not _NAME.fullmatch(key):
                    yield Violation(
                        join(label, "key"), f"`{key}` is not a name of a label", "use letters, digits and _"
                    )
            kinds = [kind for kind in ("counter", "gauge", "histogram") if kind in found]
            if len(kinds) != 1:
                what = f"it is {' and '.join(kinds)} at once" if kinds else "it is no counter, gauge or histogram"
                yield Violation(path, what, "give exactly one of counter, gauge, histogram")
            for kind in kinds:
                text = str(section(found, kind).get("value", ""))
                if "value" in section(found, kind) and not text:
                    yield Violation(
                        join(path, kind), f"the {kind} has an empty value", "give value, as in '1' or '{{duration}}'"
                    )
                if section(found, kind).get("realtime") and "resourcesDuration." in text:
                    yield Violation(
                        join(path, kind), "resourcesDuration is known only at the end", "take realtime out"
                    )
