"""Find models and machine sizes by name. Each file is read once, and only when a name asks for it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from presets.facts import Model, Prices, Sku

HERE = Path(__file__).parent
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnknownPreset(LookupError):
    """No model has this name; ``near`` are names like it."""

    kind = "preset"

    def __init__(self, name: str, near: Sequence[str]) -> None:
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        super().__init__(f"unknown {self.kind} {name!r}{hint}")
        self.name = name
        self.near = tuple(near)


class UnknownSku(UnknownPreset):
    """No machine size has this name; ``near`` are names like it."""

    kind = "instance type"


def model(name: str) -> Model:
    """The model of a preset name, an older name or a Hugging Face id, whatever its case.

    Raises:
        UnknownPreset: with near names.
    """
    wanted = name.lower()
    file = HERE / "models" / f"{wanted}.yaml"
    if file in _tunable_files():
        return _tunable(file)
    for found in _all_models():
        if wanted in _names(found):
            return found
    raise UnknownPreset(name, _near(wanted, models()))


def models() -> list[Model]:
    """Every model: those that can be tuned first, each group by name."""
    return sorted(_all_models(), key=lambda m: (not m.tuning, m.name.lower()))


def sku(name: str) -> Sku:
    """The machine size of an Azure name, whatever its case.

    Raises:
        UnknownSku: with near names.
    """
    for found in _skus():
        if name.lower() in (found.name.lower(), *(alias.lower() for alias in found.aliases)):
            return found
    known = {found.name.lower(): found.name for found in _skus()}
    raise UnknownSku(name, [known[near] for near in difflib.get_close_matches(name.lower(), known, n=3)])


def skus() -> list[Sku]:
    """Every machine size, current ones first."""
    return list(_skus())


@cache
def prices() -> Prices:
    """What machine sizes cost; a size that is not in the table has no known price."""
    return Prices.model_validate(_read(HERE / "prices.yaml"))


def _all_models() -> Iterator[Model]:
    yield from map(_tunable, _tunable_files())
    yield from _catalog()


def _names(found: Model) -> set[str]:
    return {name.lower() for name in (found.name, found.repository, *found.aliases)}


def _near(wanted: str, among: list[Model]) -> list[str]:
    known = {name: found.name for found in among for name in _names(found)}
    return list(dict.fromkeys(known[name] for name in difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)))


@cache
def _tunable_files() -> tuple[Path, ...]:
    return tuple(sorted((HERE / "models").glob("*.yaml")))


@cache
def _tunable(file: Path) -> Model:
    return Model.model_validate(_read(file))


@cache
def _catalog() -> tuple[Model, ...]:
    return tuple(Model.model_validate(entry) for entry in _read(HERE / "catalog.yaml"))


@cache
def _skus() -> tuple[Sku, ...]:
    return tuple(Sku.model_validate(entry) for entry in _read(HERE / "skus.yaml"))


def _read(file: Path) -> Any:
    return yaml.load(file.read_bytes(), Loader=_LOADER)
