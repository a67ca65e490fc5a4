"""Weights of data files: how many times the rows of each count in an epoch. Light: who validates uses it too.

A file is named as in the data, by the end of its address or path: its name, or with as many folders before it as tell
it from the others. So a weight stays with its file when files are added, left out, or given in another order.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

MAX_WEIGHT = 100.0
"""Copies are written out: more of them would rather fill the disk than teach."""
SHOWN = 5


@dataclass(frozen=True)
class Fault:
    """What is wrong with the weight under ``key``, or with all of them together (an empty key)."""

    key: str
    message: str
    fix: str


def of_files(weights: Mapping[str, float], files: Sequence[str]) -> tuple[list[float], list[Fault]]:
    """The weight of each file (1 where none is written), and what is wrong with those written.

    ``files``: addresses, or paths below the folder of the data.
    """
    names = [_plain(file) for file in files]
    found = [1.0] * len(files)
    taken: dict[int, str] = {}
    faults = []
    for key, weight in weights.items():
        if not 0 <= weight <= MAX_WEIGHT:
            faults.append(Fault(key, f"{weight:g} is no weight", f"write a number from 0 to {MAX_WEIGHT:g}"))
            continue
        meant = _meant(_plain(key), names)
        if len(meant) != 1:
            faults.append(_several(key, [names[place] for place in meant]) if meant else _none(key, names))
        elif meant[0] in taken:
            fix = "keep one of them"
            faults.append(Fault(key, f"the file has a weight already, as {taken[meant[0]]}", fix))
        else:
            taken[meant[0]] = key
            found[meant[0]] = weight
    if not faults and files and not any(found):
        faults.append(Fault("", "all files have the weight 0: no row is left to train on", "give one of them more"))
    return found, faults


def _meant(key: str, names: Sequence[str]) -> list[int]:
    """Files that a key means: the one of exactly this name, else those whose last parts are the key's."""
    same = [place for place, name in enumerate(names) if name == key]
    return same or [place for place, name in enumerate(names) if f"/{name}".endswith(f"/{key}") and key]


def _plain(file: str) -> str:
    """An address without user, query and fragment: they are no part of the name, and may be secret."""
    return unquote(re.sub(r"(?<=://)[^/]*@", "", re.split("[?#]", file, maxsplit=1)[0]))


def _none(key: str, names: Sequence[str]) -> Fault:
    short = list(dict.fromkeys(name.rpartition("/")[2] for name in names))
    near = difflib.get_close_matches(_plain(key).rpartition("/")[2], short, 1)
    more = f" and {len(short) - SHOWN} more" if len(short) > SHOWN else ""
    there = f"there are {', '.join(short[:SHOWN])}{more}"
    return Fault(key, "is no file of the data", f"did you mean {near[0]}?" if near and near[0] != key else there)


def _several(key: str, names: Sequence[str]) -> Fault:
    told = ", ".join(names[:SHOWN])
    if len(set(names)) < len(names):
        return Fault(key, f"{len(names)} files are called so: {told}", "give them names of their own")
    return Fault(key, f"means {len(names)} files: {told}", "write more of the path, or the whole address")
