"""Files of the inputs of a run: downloaded, found in a folder, or pulled as an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.data import fetch, file_weights
from steps.data.formats import folders
from steps.data.locations import location
from steps.download import sample
from steps.download.settings import NamedInput, Settings
from steps.runtime import files
from steps.runtime.errors import BadInput


@dataclass(frozen=True)
class Source:
    """A data file."""

    name: str
    """Its URL, or its path relative to the data directory."""
    location: str
    """Origin, for messages."""
    path: Path
    size: int
    sha256: str
    input: NamedInput


def collect_sources(settings: Settings, raw: Path) -> list[Source]:
    """Return the files of all inputs, downloaded to ``raw`` where they are not local.

    Raises:
        BadInput: no input, several sources of one, invalid URLs, weights or checksums, or no files.
        StepError: unreachable servers.
    """
    inputs = list(_inputs(settings))
    if all(location.is_single_file(url) for url in settings.urls) and settings.urls:
        resolve_weights(settings.weights, settings.urls)  # before downloading
    sources: list[Source] = []
    for data in inputs:
        sources += _collect(data, raw / data.name, settings)
    return sources


def weights_of(settings: Settings, sources: Sequence[Source]) -> list[float]:
    """Return the weight of each file; empty if all are 1, so that explicit and default weights give equal digests."""
    unnamed = [source.name for source in sources if not source.input.name]
    by_file = iter(resolve_weights(settings.weights, unnamed))
    weights = [source.input.weight if source.input.name else next(by_file) for source in sources]
    if sources and not any(weights):
        raise BadInput("weights: all inputs have weight 0: no training rows remain", "increase one weight")
    return weights if any(weight != 1 for weight in weights) else []


def resolve_weights(weights: dict[str, float], names: Sequence[str]) -> list[float]:
    """Return the weight of each file of the unnamed input.

    Raises:
        BadInput: weights of files that do not exist, or are ambiguous.
    """
    resolved, errors = file_weights.resolve_weights(weights, names)
    if errors:
        lines = [f"{f'weights.{error.key}' if error.key else 'weights'}: {error.message}" for error in errors]
        raise BadInput("\n  ".join(lines), "; ".join(dict.fromkeys(error.fix for error in errors)))
    return resolved


def has_changed(settings: Settings, recorded: Sequence[Mapping[str, Any]]) -> bool:
    """Return True if the files of mounted folders differ from the ``sources`` recorded in the manifest."""
    return any(
        [source.sha256 for source in _find_files(data.source, data)]
        != [source["sha256"] for source in recorded if source.get("input", "") == data.name]
        for data in _inputs(settings)
        if data.source
    )


def _inputs(settings: Settings) -> Iterator[NamedInput]:
    """Yield the inputs: the unnamed one of KAITO first.

    Raises:
        BadInput: an input has not exactly one source.
    """
    unnamed = NamedInput.model_construct(
        name="", urls=settings.urls, source=settings.source, image=settings.image, pattern=settings.pattern,
        columns=settings.columns, weight=1.0,
    )  # fmt: skip
    has_unnamed = bool(settings.urls or settings.source or settings.image)
    inputs = [*([unnamed] if has_unnamed or not settings.inputs else []), *settings.inputs]
    names = [data.name for data in inputs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"inputs: {', '.join(repeated)}: several inputs have this name", "give each its own name")
    for data in inputs:
        given = [name for name in ("urls", "source", "image") if getattr(data, name)]
        if len(given) != 1:
            place = f"inputs.{data.name}: " if data.name else ""
            choice = "urls, source and image" if data.name else "--urls, --source and --image"
            raise BadInput(f"{place}{' and '.join(given) or 'none'} of {choice} set", "pass exactly one")
    yield from inputs


def _collect(data: NamedInput, raw: Path, settings: Settings) -> list[Source]:
    if data.urls:
        fetch_files = sample.fetch_samples if settings.sample else fetch.fetch_all
        downloaded = fetch_files(
            data.urls, raw, allow_private_hosts=settings.allow_private_hosts, pattern=data.pattern
        )
        return [Source(file.url, file.url, file.path, file.size, file.sha256, data) for file in downloaded]
    if data.source:
        return _find_files(data.source, data)
    from steps.oci import reference, registry

    folder = registry.pull_data(reference.parse(data.image), raw / "image")
    return _find_files(folder, data, prefix=f"{data.image}:")


def _find_files(folder: Path, data: NamedInput, prefix: str = "") -> list[Source]:
    found = folders.find_data_files(folder, data.pattern)
    for line in found.describe():
        print(f"{f'{data.name}: ' if data.name else ''}{line}", flush=True)
    return [
        Source(
            name, f"{prefix}{path.name}" if prefix else str(path), path, path.stat().st_size, files.sha256(path), data
        )
        for name, path in found.files.items()
    ]
