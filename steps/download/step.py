"""Bring the data here, from web addresses or a folder: checked, in one format, split, with its digests recorded."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.data import file_weights, row_messages
from steps.download import fetch, resampling, rows
from steps.download.row_shuffle import RowBuffer
from steps.download.settings import Result, Settings
from steps.runtime import files
from steps.runtime.errors import BadInput
from steps.tune import dpo

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class _Source:
    name: str
    """Its address, or its path below the folder of the data."""
    place: str
    path: Path
    size: int
    sha256: str


def download(settings: Settings) -> Result:
    """Fetch, check, normalize, shuffle and split the data; write `dataset/` with `manifest.json` last.

    Raises:
        BadInput: settings, addresses, files or rows that cannot be used, all that were found; or no space left.
        StepError: servers that could not be reached.
    """
    given = [name for name in ("urls", "source", "image") if getattr(settings, name)]
    if len(given) != 1:
        raise BadInput(f"{' and '.join(given) or 'none'} of --urls, --source and --image given", "give exactly one")
    dataset = settings.work / "dataset"
    sources: list[_Source] = []
    try:
        sources = _gathered(settings, dataset / "raw")
        return _prepare(settings, sources, dataset)
    except BadInput as error:
        # The next try must see what the user has mended, not what was fetched before.
        if settings.urls:
            at_fault = error.at_fault if isinstance(error, rows.UnusableData) else [source.path for source in sources]
            fetch.forget(at_fault)
        raise
    finally:
        _remove_if_empty(dataset / "raw", dataset)


def outputs_intact(settings: Settings, result: Result) -> bool:
    """Whether the split is on disk as recorded, and the files of ``source`` are still those it was made of."""
    dataset = settings.work / "dataset"
    manifest = json.loads((dataset / "manifest.json").read_text())
    if manifest["data_digest"] != result.data_digest:
        return False
    if settings.source and [source.sha256 for source in _found(settings.source)] != _recorded(manifest):
        return False
    return all(files.sha256(dataset / name) == digest for name, digest in manifest["files"].items())


def _gathered(settings: Settings, raw: Path) -> list[_Source]:
    if settings.urls:
        _weights(settings.weights, settings.urls)  # first, since what comes here for nothing is fetched again
        return _fetched(settings, raw)
    if settings.source:
        return _found(settings.source)
    from steps.oci import reference, registry

    folder = registry.pull_data(reference.parse(settings.image), raw / "image")
    return [replace(source, place=f"{settings.image}:{source.path.name}") for source in _found(folder)]


def _fetched(settings: Settings, raw: Path) -> list[_Source]:
    found = fetch.fetch_all(settings.urls, raw, allow_private_hosts=settings.allow_private_hosts)
    return [_Source(file.url, file.url, file.path, file.size, file.sha256) for file in found]


def _found(source: Path) -> list[_Source]:
    if not source.exists():
        raise BadInput(f"{source} does not exist", "name a folder with parquet files, or one parquet file")
    # Hidden folders are left out: a mounted ConfigMap shows each of its files a second time in one.
    below = [path.relative_to(source) for path in sorted(source.rglob("*"))] if source.is_dir() else []
    visible = [path for path in below if not any(part.startswith(".") for part in path.parts)]
    found = [source / path for path in visible if path.suffix.lower() == ".parquet" and (source / path).is_file()]
    if source.is_file():
        found = [source]
    if not found:
        there = ", ".join(str(path) for path in visible[:5]) or "nothing"
        raise BadInput(f"no *.parquet below {source}; there is {there}", "put the data there as parquet files")
    folder = source if source.is_dir() else source.parent
    return [
        _Source(path.relative_to(folder).as_posix(), str(path), path, path.stat().st_size, files.sha256(path))
        for path in found
    ]


def _prepare(settings: Settings, sources: list[_Source], dataset: Path) -> Result:
    data = [rows.DataFile(source.path, source.place) for source in sources]
    columns = {str(name): column for name, column in settings.columns.items()}
    weights = _weights(settings.weights, [source.name for source in sources])
    data_format = rows.format_of(data, columns)
    dpo.check_data(settings.objective, data_format == "preference")
    counts = [rows.count_rows([file]) for file in data]
    train, held_out = rows.split(sum(counts), settings.eval_split, settings.shuffle, settings.seed)
    told: list[dict[str, Any]] = [{}] * len(data)
    if weights:
        train, taken = resampling.weighted(train, counts, weights, settings.shuffle, settings.seed)
        told = [{"weight": weight, "train_rows": count} for weight, count in zip(weights, taken, strict=True)]
    places = resampling.RowPlacement(train, held_out, sum(counts))
    manifest_file = dataset / "manifest.json"
    parts = {"train.parquet": len(train)} | ({"eval.parquet": len(held_out)} if len(held_out) else {})
    dataset.mkdir(parents=True, exist_ok=True)
    schema = row_messages.schema_of(data_format)
    with closing(RowBuffer(dataset / ".rows.arrow.partial", schema)) as spool:

        def keep(given: pa.RecordBatch) -> None:
            for copies, their_places in places.of(given):
                spool.add(copies, their_places)

        found = rows.normalize(data, data_format, keep, columns)
        # Without a manifest the split counts as not made, whatever a killed step leaves of it.
        manifest_file.unlink(missing_ok=True)
        (dataset / "eval.parquet").unlink(missing_ok=True)
        rows.write_parquet(spool.ordered(), schema, {dataset / name: count for name, count in parts.items()})
    split = {"eval_split": settings.eval_split, "shuffle": settings.shuffle, "seed": settings.seed}
    content: dict[str, Any] = {"files": [source.sha256 for source in sources], "split": split}
    if settings.columns:
        content["columns"] = settings.columns
    if weights:
        content["weights"] = weights
    digest = files.sha256_text(json.dumps(content, sort_keys=True))
    result = Result(rows=len(train), eval_rows=len(held_out), data_digest=digest, data_format=data_format)
    duplicates, leaked = rows.repeated(found.digests, train, held_out)
    manifest: dict[str, Any] = asdict(result) | {
        "sources": [
            {"from": source.place, "size": source.size, "sha256": source.sha256, "rows": count, **weight}
            for source, count, weight in zip(sources, found.counts, told, strict=True)
        ],
        "split": split,
        "files": {name: files.sha256(dataset / name) for name in parts},
        "duplicate_rows": duplicates,
        "held_out_rows_in_train": leaked,
        "unused_columns": found.unused,
    }
    files.write_json(manifest_file, manifest)
    _tell(result, manifest)
    return result


def _weights(given: dict[str, float], names: list[str]) -> list[float]:
    """Weight of each file; none where all count the same, so that 1 and nothing written are the same data."""
    found, faults = file_weights.of_files(given, names)
    if faults:
        told = [f"{f'weights.{fault.key}' if fault.key else 'weights'}: {fault.message}" for fault in faults]
        raise BadInput("\n  ".join(told), "; ".join(dict.fromkeys(fault.fix for fault in faults)))
    return found if any(weight != 1 for weight in found) else []


def _tell(result: Result, manifest: dict[str, Any]) -> None:
    count = len(manifest["sources"])
    print(
        f"{result.rows} rows to train on, {result.eval_rows} held out, from {count} file{'s' * (count > 1)}",
        flush=True,
    )
    for source in manifest["sources"]:
        if "weight" in source:
            print(f"  {source['train_rows']} of {source['from']} (weight {source['weight']:g})", flush=True)
    if manifest["unused_columns"]:
        print(f"not used: the columns {', '.join(manifest['unused_columns'])}", flush=True)
    if manifest["duplicate_rows"]:
        print(
            f"warning: {manifest['duplicate_rows']} rows repeat an earlier one; "
            f"{manifest['held_out_rows_in_train']} held-out rows are among the training rows too",
            flush=True,
        )


def _recorded(manifest: dict[str, Any]) -> list[str]:
    return [source["sha256"] for source in manifest["sources"]]


def _remove_if_empty(*folders: Path) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
