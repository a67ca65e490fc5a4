"""Download the training data from URLs, a directory or an image; validate, normalize and split it."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.data import file_weights, row_messages
from steps.data.formats import conversion, folders
from steps.data.locations import location
from steps.download import fetch, resampling, rows, sample
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
    """Its URL, or its path relative to the data directory."""
    location: str
    path: Path
    size: int
    sha256: str


def download(settings: Settings) -> Result:
    """Fetch, check, normalize, shuffle and split the data; write `dataset/` with `manifest.json` last.

    Raises:
        BadInput: all invalid settings, URLs, files or rows; or no space left.
        StepError: unreachable servers.
    """
    sources_set = [name for name in ("urls", "source", "image") if getattr(settings, name)]
    if len(sources_set) != 1:
        raise BadInput(
            f"{' and '.join(sources_set) or 'none'} of --urls, --source and --image set", "pass exactly one"
        )
    dataset = settings.work / "dataset"
    sources: list[_Source] = []
    try:
        sources = _collect_sources(settings, dataset / "raw")
        return _prepare(settings, sources, dataset)
    except BadInput as error:
        # The next attempt must download the files that the user has fixed.
        if settings.urls:
            invalid = (
                error.invalid_files if isinstance(error, rows.UnusableData) else [source.path for source in sources]
            )
            fetch.delete_downloads(invalid)
        raise
    finally:
        _remove_if_empty(dataset / "raw", dataset)


def outputs_intact(settings: Settings, result: Result) -> bool:
    """Return True if the dataset is on disk as recorded, and the files of ``source`` have not changed."""
    dataset = settings.work / "dataset"
    manifest = json.loads((dataset / "manifest.json").read_text())
    if manifest["data_digest"] != result.data_digest:
        return False
    if settings.source and [
        source.sha256 for source in _find_files(settings.source, settings.pattern)
    ] != _recorded_digests(manifest):
        return False
    return all(files.sha256(dataset / name) == digest for name, digest in manifest["files"].items())


def _collect_sources(settings: Settings, raw: Path) -> list[_Source]:
    if settings.urls:
        if all(location.is_single_file(url) for url in settings.urls):
            _resolve_weights(settings.weights, settings.urls)  # before downloading
        return _fetch_files(settings, raw)
    if settings.source:
        return _find_files(settings.source, settings.pattern)
    from steps.oci import reference, registry

    folder = registry.pull_data(reference.parse(settings.image), raw / "image")
    return [
        replace(source, location=f"{settings.image}:{source.path.name}")
        for source in _find_files(folder, settings.pattern)
    ]


def _fetch_files(settings: Settings, raw: Path) -> list[_Source]:
    fetch_files = sample.fetch_samples if settings.sample else fetch.fetch_all
    downloaded = fetch_files(
        settings.urls, raw, allow_private_hosts=settings.allow_private_hosts, pattern=settings.pattern
    )
    return [_Source(file.url, file.url, file.path, file.size, file.sha256) for file in downloaded]


def _find_files(source: Path, pattern: str) -> list[_Source]:
    found = folders.find_data_files(source, pattern)
    for line in found.describe():
        print(line, flush=True)
    return [
        _Source(name, str(path), path, path.stat().st_size, files.sha256(path)) for name, path in found.files.items()
    ]


def _prepare(settings: Settings, sources: list[_Source], dataset: Path) -> Result:
    columns = {str(name): column for name, column in settings.columns.items()}
    data = _to_parquet(sources, columns, dataset / "converted")
    names = [source.name for source in sources]
    weights = [] if settings.sample else _resolve_weights(settings.weights, names)
    data_format = rows.detect_common_format(data, columns)
    dpo.check_data(settings.objective, data_format == "preference")
    counts = [rows.count_rows([file]) for file in data]
    train, held_out = rows.split(sum(counts), settings.eval_split, settings.shuffle, settings.seed)
    weight_facts: list[dict[str, Any]] = [{}] * len(data)
    if weights:
        train, rows_per_file = resampling.resample(train, counts, weights, settings.shuffle, settings.seed)
        weight_facts = [
            {"weight": weight, "train_rows": count} for weight, count in zip(weights, rows_per_file, strict=True)
        ]
    placement = resampling.RowPlacement(train, held_out, sum(counts))
    manifest_file = dataset / "manifest.json"
    parts = {"train.parquet": len(train)} | ({"eval.parquet": len(held_out)} if len(held_out) else {})
    dataset.mkdir(parents=True, exist_ok=True)
    schema = row_messages.output_schema(data_format)
    with closing(RowBuffer(dataset / ".rows.arrow.partial", schema)) as row_buffer:

        def keep(batch: pa.RecordBatch) -> None:
            for copies, positions in placement.place(batch):
                row_buffer.add(copies, positions)

        normalized = rows.normalize(data, data_format, keep, columns)
        # Without a manifest the dataset counts as incomplete, so remove it before writing.
        manifest_file.unlink(missing_ok=True)
        (dataset / "eval.parquet").unlink(missing_ok=True)
        rows.write_parquet(row_buffer.iter_sorted(), schema, {dataset / name: count for name, count in parts.items()})
    split = {"eval_split": settings.eval_split, "shuffle": settings.shuffle, "seed": settings.seed}
    content: dict[str, Any] = {"files": [source.sha256 for source in sources], "split": split}
    if settings.columns:
        content["columns"] = settings.columns
    if weights:
        content["weights"] = weights
    digest = files.sha256_text(json.dumps(content, sort_keys=True))
    result = Result(rows=len(train), eval_rows=len(held_out), data_digest=digest, data_format=data_format)
    duplicates, leaked = rows.count_duplicates(normalized.digests, train, held_out)
    manifest: dict[str, Any] = asdict(result) | {
        "sources": [
            {"from": source.location, "size": source.size, "sha256": source.sha256, "rows": count, **weight}
            for source, count, weight in zip(sources, normalized.counts, weight_facts, strict=True)
        ],
        "split": split,
        "files": {name: files.sha256(dataset / name) for name in parts},
        "duplicate_rows": duplicates,
        "held_out_rows_in_train": leaked,
        "unused_columns": normalized.unused,
    }
    files.write_json(manifest_file, manifest)
    shutil.rmtree(dataset / "converted", ignore_errors=True)
    _print_summary(result, manifest)
    return result


def _to_parquet(sources: list[_Source], columns: dict[str, str], folder: Path) -> list[rows.DataFile]:
    """Convert files of other formats to parquet in ``folder``, and return all files.

    Raises:
        UnusableData: invalid files, with all their errors.
    """
    use = conversion.ColumnUse.of(columns)
    data, errors = [], {}
    for source in sources:
        try:
            path = conversion.to_parquet(source.path, source.location, source.sha256, use, folder)
        except BadInput as error:
            errors[source.path] = error
            continue
        find_lines = partial(conversion.find_lines, source.path, source.location, use)
        data.append(rows.DataFile(path, source.location, source.path, find_lines))
    if errors:
        raise rows.UnusableData.combine(errors)
    return data


def _resolve_weights(weights: dict[str, float], names: list[str]) -> list[float]:
    """Return the weight of each file; empty if all are 1, so that explicit and default weights give equal digests."""
    resolved, errors = file_weights.resolve_weights(weights, names)
    if errors:
        lines = [f"{f'weights.{error.key}' if error.key else 'weights'}: {error.message}" for error in errors]
        raise BadInput("\n  ".join(lines), "; ".join(dict.fromkeys(error.fix for error in errors)))
    return resolved if any(weight != 1 for weight in resolved) else []


def _print_summary(result: Result, manifest: dict[str, Any]) -> None:
    count = len(manifest["sources"])
    print(
        f"{result.rows} training rows, {result.eval_rows} held out, from {count} file{'s' * (count > 1)}",
        flush=True,
    )
    for source in manifest["sources"]:
        if "weight" in source:
            print(f"  {source['train_rows']} of {source['from']} (weight {source['weight']:g})", flush=True)
    if manifest["unused_columns"]:
        print(f"unused columns: {', '.join(manifest['unused_columns'])}", flush=True)
    if manifest["duplicate_rows"]:
        print(
            f"warning: {manifest['duplicate_rows']} rows are duplicates; "
            f"{manifest['held_out_rows_in_train']} held-out rows are also training rows",
            flush=True,
        )


def _recorded_digests(manifest: dict[str, Any]) -> list[str]:
    return [source["sha256"] for source in manifest["sources"]]


def _remove_if_empty(*folders: Path) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
