"""Look up models and instance types by name. Each file is read once, at its first use."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from presets import own
from presets.facts import Model, Prices, Sku, VllmArchitectures, VllmFlags

FOLDER = Path(__file__).parent
UNLISTED = re.compile(r"standard_[nd][a-z]*[0-9]+(-[0-9]+)?[a-z]*(_[a-z0-9]+)*_v[0-9]+", re.IGNORECASE)
"""Azure's names of the N and D series: family, vCPUs, features, accelerator, version."""
CHAT_TEMPLATES = "/workspace/chat_templates/"
"""Directory of chat templates in KAITO's image."""
_site_skus: list[Sku] = []
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnknownPreset(LookupError):
    """No model has this name; ``near`` has similar names."""

    kind = "preset"

    def __init__(self, name: str, near: Sequence[str]) -> None:
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        super().__init__(f"unknown {self.kind} {name!r}{hint}")
        self.name = name
        self.near = tuple(near)


class UnknownSku(UnknownPreset):
    """No instance type has this name; ``near`` has similar names."""

    kind = "instance type"


def model(name: str) -> Model:
    """Return the model with a preset name, an older name or a Hugging Face id (``ORG/NAME[@REVISION]``).

    Case is ignored. Presets of the user win, then those that the user derived, then those that can be tuned.

    Raises:
        UnknownPreset: with similar names.
    """
    found = own.find(name) or own.find_cached(name) or find_packaged(name, tunable=True) or find_packaged(name)
    if found is None:
        raise UnknownPreset(name, _similar_names(name.lower(), known_models()))
    return found


def find_packaged(name: str, *, tunable: bool = False) -> Model | None:
    """Return the model of argotune with a name; None if there is none. ``tunable``: only one that can be tuned."""
    key, _, revision = name.lower().partition("@")
    file = FOLDER / "models" / f"{key}.yaml"
    candidates = [_tunable(file)] if file in _tunable_files() else _all_models(tunable=tunable)
    found = (candidate for candidate in candidates if key in _names(candidate))
    return next((candidate for candidate in found if candidate.revision.startswith(revision)), None)


def models() -> list[Model]:
    """Return argotune's models: those that can be tuned first, each group sorted by name."""
    return sorted(_all_models(), key=_order)


def known_models() -> list[Model]:
    """Return argotune's models and those of the user, in the same order."""
    found = {candidate.name.lower(): candidate for candidate in _all_models()}
    found |= {candidate.name.lower(): candidate for candidate in own.models()}
    return sorted(found.values(), key=_order)


def _order(model: Model) -> tuple[bool, str]:
    return not model.tuning, model.name.lower()


def sku(name: str) -> Sku:
    """Return the instance type with this name; case is ignored.

    Raises:
        UnknownSku: with similar names.
    """
    for candidate in skus():
        if name.lower() in (candidate.name.lower(), *(alias.lower() for alias in candidate.aliases)):
            return candidate
    known = {candidate.name.lower(): candidate.name for candidate in skus()}
    raise UnknownSku(name, [known[near] for near in difflib.get_close_matches(name.lower(), known, n=3)])


def find_sku(name: str) -> Sku | None:
    """Return the instance type with this name; None without a name, and for sizes of Azure that are not listed.

    KAITO accepts every size of the N and D series (``api/v1beta1/workspace_validation.go``, 0.12).

    Raises:
        UnknownSku: with similar names.
    """
    try:
        return sku(name) if name else None
    except UnknownSku:
        if UNLISTED.fullmatch(name):
            return None
        raise


def skus() -> list[Sku]:
    """Return all instance types, the site's first, then the current ones."""
    return [*_site_skus, *_skus()]


def set_site_skus(sizes: Sequence[Sku]) -> None:
    """Replace the instance types of the site profile; each hides a listed one with its name."""
    _site_skus[:] = sizes


@cache
def prices() -> Prices:
    """Return the price table; an instance type that is missing there has no known price."""
    return Prices.model_validate(_read(FOLDER / "prices.yaml"))


@cache
def vllm_flags() -> VllmFlags:
    """Return the flags of the vLLM that containers/serve.Dockerfile installs."""
    return VllmFlags.model_validate_json((FOLDER / "vllm_flags.json").read_bytes())


@cache
def vllm_architectures() -> VllmArchitectures:
    """Return the model classes of the vLLM that containers/serve.Dockerfile installs."""
    return VllmArchitectures.model_validate_json((FOLDER / "vllm_architectures.json").read_bytes())


def chat_template(path: str) -> str:
    """Return the text of a chat template in KAITO's image, by its path there.

    Raises:
        LookupError: KAITO 0.12 has no such file; with its similar names.
    """
    names = {file.name: file for file in sorted((FOLDER / "chat_templates").glob("*.jinja"))}
    name = path.removeprefix(CHAT_TEMPLATES)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names
        raise LookupError(f"KAITO's image has {', '.join(near)}")
    return names[name].read_text(encoding="utf-8")


def _all_models(*, tunable: bool = False) -> Iterator[Model]:
    yield from map(_tunable, _tunable_files())
    if not tunable:
        yield from _catalog()


def _names(model: Model) -> set[str]:
    return {name.lower() for name in (model.name, model.repository, *model.aliases)}


def _similar_names(key: str, candidates: list[Model]) -> list[str]:
    known = {name: candidate.name for candidate in candidates for name in _names(candidate)}
    return list(dict.fromkeys(known[name] for name in difflib.get_close_matches(key, known, n=3, cutoff=0.5)))


@cache
def _tunable_files() -> tuple[Path, ...]:
    return tuple(sorted((FOLDER / "models").glob("*.yaml")))


@cache
def _tunable(file: Path) -> Model:
    return Model.model_validate(_read(file))


@cache
def _catalog() -> tuple[Model, ...]:
    return tuple(Model.model_validate(entry) for entry in _read(FOLDER / "catalog.yaml"))


@cache
def _skus() -> tuple[Sku, ...]:
    return tuple(Sku.model_validate(entry) for entry in _read(FOLDER / "skus.yaml"))


def _read(file: Path) -> Any:
    return yaml.load(file.read_bytes(), Loader=_LOADER)
