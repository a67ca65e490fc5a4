"""Weights of data files: how many times the rows of each are trained on in an epoch. Imports no heavy library.

A file is identified by the end of its URL or path: its name, preceded by directories as needed to be unambiguous.
Its weight does not depend on the other files or their order.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

MAX_WEIGHT = 100.0
"""Limit of copies, which are written to disk."""
MAX_SHOWN = 5


@dataclass(frozen=True)
class WeightError:
    """Error of the weight under ``key``, or of all weights together (an empty key)."""

    key: str
    message: str
    fix: str


def resolve_weights(weights: Mapping[str, float], files: Sequence[str]) -> tuple[list[float], list[WeightError]]:
    """Return the weight of each file (default 1), and the errors of ``weights``.

    ``files`` are URLs, or paths relative to the data directory.
    """
    names = [_strip_url(file) for file in files]
    resolved = [1.0] * len(files)
    matched: dict[int, str] = {}
    errors = []
    for key, weight in weights.items():
        if not 0 <= weight <= MAX_WEIGHT:
            errors.append(WeightError(key, f"{weight:g} is out of range", f"use a number from 0 to {MAX_WEIGHT:g}"))
            continue
        matches = _match_files(_strip_url(key), names)
        if len(matches) != 1:
            errors.append(_ambiguous(key, [names[idx] for idx in matches]) if matches else _not_found(key, names))
        elif matches[0] in matched:
            fix = "remove one of them"
            errors.append(WeightError(key, f"the file already has a weight, as {matched[matches[0]]}", fix))
        else:
            matched[matches[0]] = key
            resolved[matches[0]] = weight
    if not errors and files and not any(resolved):
        errors.append(WeightError("", "all files have weight 0: no training rows remain", "increase one weight"))
    return resolved, errors


def _match_files(key: str, names: Sequence[str]) -> list[int]:
    """Return the indices of the file with exactly this name, else of those whose path ends with the key."""
    exact = [idx for idx, name in enumerate(names) if name == key]
    return exact or [idx for idx, name in enumerate(names) if f"/{name}".endswith(f"/{key}") and key]


def _strip_url(file: str) -> str:
    """Return a URL without user, query and fragment, which can be secret."""
    return unquote(re.sub(r"(?<=://)[^/]*@", "", re.split("[?#]", file, maxsplit=1)[0]))


def _not_found(key: str, names: Sequence[str]) -> WeightError:
    short = list(dict.fromkeys(name.rpartition("/")[2] for name in names))
    similar = difflib.get_close_matches(_strip_url(key).rpartition("/")[2], short, 1)
    more = f" and {len(short) - MAX_SHOWN} more" if len(short) > MAX_SHOWN else ""
    existing = f"use one of {', '.join(short[:MAX_SHOWN])}{more}"
    return WeightError(
        key, "no such file in the data", f"did you mean {similar[0]}?" if similar and similar[0] != key else existing
    )


def _ambiguous(key: str, names: Sequence[str]) -> WeightError:
    listed = ", ".join(names[:MAX_SHOWN])
    if len(set(names)) < len(names):
        return WeightError(key, f"{len(names)} files have this name: {listed}", "give them different names")
    return WeightError(key, f"matches {len(names)} files: {listed}", "use a longer path, or the whole URL")
