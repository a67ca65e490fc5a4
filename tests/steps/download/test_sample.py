"""Samples for a preview: few bytes of large files, the same rows, and whole files where the format needs it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_hub import DatasetHub
from object_stores import SERVERS
from parquet_server import Fault, ParquetServer

from steps.download import sample
from steps.download.sample import fetch_samples
from steps.download.settings import Settings
from steps.download.step import download
from steps.runtime.errors import StepError

ROWS = [{"prompt": f'question {i} "quoted"\nline {"x" * 400}', "completion": f"answer {i}"} for i in range(20_000)]


@pytest.fixture(scope="module")
def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), buffer, row_group_size=5_000, compression="none", use_dictionary=False)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def csv() -> bytes:
    quoted = (",".join('"' + row[name].replace('"', '""') + '"' for name in ROWS[0]) for row in ROWS)
    return ("prompt,completion\n" + "\n".join(quoted) + "\n").encode()


def get(folder: Path, *urls: str) -> list[bytes]:
    return [file.path.read_bytes() for file in fetch_samples(urls, folder, allow_private_hosts=True, wait=[].append)]


def test_the_first_rows_of_parquet(tmp_path, parquet_server: ParquetServer, parquet: bytes, capfd) -> None:
    url = parquet_server.put("/x.parquet", parquet)
    [content] = get(tmp_path, url)
    assert pq.read_table(io.BytesIO(content)).to_pylist() == ROWS[: sample.MAX_ROWS]
    assert parquet_server.sent("/x.parquet") < len(parquet) / 3
    assert "read the first 2000 of 20000 rows" in capfd.readouterr().out


def test_the_first_lines(tmp_path, parquet_server: ParquetServer, csv: bytes) -> None:
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
    urls = [parquet_server.put("/x.jsonl", lines), parquet_server.put("/x.csv", csv)]
    first, second = get(tmp_path, *urls)
    assert lines.startswith(first) and first.endswith(b"}\n") and len(first) > sample.MAX_BYTES - 1000
    assert csv.startswith(second) and second.endswith(b'"\n') and second.count(b'"') % 2 == 0
    for path in ("/x.jsonl", "/x.csv"):
        assert parquet_server.sent(path) < 2 * sample.MAX_BYTES < len(lines)


@pytest.mark.parametrize("name", ["x.parquet", "x.csv", "x.json"])
def test_whole_files_where_ranges_or_format_do_not_allow_it(tmp_path, parquet_server, parquet, csv, name: str) -> None:
    body = {"x.parquet": parquet, "x.csv": csv[:100_000], "x.json": json.dumps(ROWS).encode()}[name]
    url = parquet_server.put(f"/{name}", body)
    if name != "x.json":
        parquet_server.always[f"/{name}"] = Fault(ignores_range=True)
    assert get(tmp_path, url) == [body]


def test_a_damaged_file_is_described_by_its_reader(tmp_path, parquet_server: ParquetServer, parquet: bytes) -> None:
    url = parquet_server.put("/x.parquet", parquet[:-100])
    with pytest.raises(StepError, match=r"x\.parquet"):
        download(Settings(work=tmp_path, urls=[url], allow_private_hosts=True, sample=True))


def test_a_broken_connection_is_retried(tmp_path, parquet_server: ParquetServer, parquet: bytes) -> None:
    url = parquet_server.put("/x.parquet", parquet)
    parquet_server.faults["/x.parquet"] += [Fault(), Fault(cut_after=100)]
    assert len(get(tmp_path, url)) == 1


def test_a_few_files_of_a_dataset(tmp_path, monkeypatch, parquet: bytes) -> None:
    hub = DatasetHub()
    try:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.commit({f"train-{number}.parquet": parquet for number in range(5)})
        settings = Settings(
            work=tmp_path, urls=["hf://datasets/org/rows"], allow_private_hosts=True, sample=True, weights={"x": 2}
        )
        result = download(settings)
        assert result.rows + result.eval_rows == sample.MAX_FILES * sample.MAX_ROWS
    finally:
        hub.stop()


def test_objects_of_a_bucket(tmp_path, monkeypatch, parquet: bytes) -> None:
    with SERVERS["s3"]() as store:
        for name, value in store.environment(store.port).items():
            monkeypatch.setenv(name, value)
        store.put("data/1.parquet", parquet)
        [content] = get(tmp_path, "s3://rows/data")
    assert pq.read_table(io.BytesIO(content)).num_rows == sample.MAX_ROWS
