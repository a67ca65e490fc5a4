"""Types of fields that a Workspace and a plan share: durations, quantities, and names of Kubernetes objects."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from steps.runtime.gpu_time import MAX_HOURS
from steps.runtime.options import Pattern
from workflows.argo.duration import parse_duration
from workflows.spec import names

_DURATION = r"([0-9]+h)?([0-9]+m)?([0-9]+s)?"


def whole_seconds(duration: str) -> int:
    """Return the seconds of a duration such as ``90s``, ``10m`` or ``1h30m``: a subset of Go's durations.

    Raises:
        ValueError: the text is not a duration, or is zero or longer than a year.
    """
    total = int(parse_duration(duration)) if duration and re.fullmatch(_DURATION, duration) else 0
    if not 0 < total <= MAX_HOURS * 3600:
        raise ValueError(f"must be a duration such as 90s, 10m or 1h30m (at most {MAX_HOURS}h), not {duration!r}")
    return total


def _duration(text: str) -> str:
    whole_seconds(text)
    return text


def _object_name(text: str) -> str:
    if text and not names.is_subdomain(text) and names.placeholders(text) != [text]:
        raise ValueError(f"{text!r} is not a name Kubernetes allows; {names.SUBDOMAIN_RULE}")
    return text


def _label(text: str) -> str:
    if text and not names.is_label(text):
        raise ValueError(f"{text!r} is not a DNS-1123 label; {names.LABEL_RULE}")
    return text


def _labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not names.is_label_key(key) or not names.is_label_value(value):
            raise ValueError(f"{key}: {value!r} is not a label Kubernetes allows; {names.LABELS_RULE}")
    return labels


Duration = Annotated[
    str, AfterValidator(_duration), WithJsonSchema({"type": "string", "pattern": f"^(?=.){_DURATION}$"})
]
Quantity = Annotated[str, Pattern(r"[1-9][0-9]*(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?", "a quantity such as 50Gi")]
ObjectName = Annotated[str, AfterValidator(_object_name)]
"""Name of a Secret, PersistentVolumeClaim, service account or storage class; may be empty, or a placeholder."""
Label = Annotated[str, AfterValidator(_label)]
"""DNS-1123 label; may be empty."""
Labels = Annotated[dict[str, str], AfterValidator(_labels)]
Word = Annotated[str, Pattern(r"\S*", "text without spaces")]
"""Text without spaces; may be empty."""
