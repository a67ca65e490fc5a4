"""The rows that the download step left, as the steps after it read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steps.errors import BadInput


def dataset_folder(given: Any) -> Path:
    """Where the settings of a step say that the rows are."""
    return Path(given.dataset or given.work / "dataset")


def read_messages(file: Path) -> list[list[dict[str, Any]]]:
    """Column ``messages`` of a parquet file of the download step.

    Raises:
        BadInput: the file is missing, is none, or has no rows.
    """
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    fix = "run the download step before"
    if not file.is_file():
        raise BadInput(f"there is no {file}", fix)
    try:
        rows: list[list[dict[str, Any]]] = pq.read_table(file, columns=["messages"]).column("messages").to_pylist()
    except (ArrowException, KeyError, OSError) as error:
        raise BadInput(f"{file} can't be read: {error}", fix) from None
    if not rows:
        raise BadInput(f"{file} has no rows", "give data with more rows, or a smaller share to evaluate on")
    return rows
