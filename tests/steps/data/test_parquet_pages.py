"""Page headers, compared with what pyarrow reports of the same files, and damaged ones."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.data.parquet_pages import DICTIONARY_PAGE, read_pages

TABLE = pa.table({"text": [f"row {n % 50} of a text" for n in range(5000)], "number": list(range(5000))})


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "zstd", "snappy"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_headers_agree_with_the_footer(tmp_path: Path, version: Any, compression: Any, dictionary: bool) -> None:
    path = tmp_path / "a.parquet"
    options: dict[str, Any] = {"data_page_version": version, "write_page_checksum": True, "data_page_size": 4096}
    pq.write_table(TABLE, path, compression=compression, use_dictionary=dictionary, **options)
    group = pq.read_metadata(path).row_group(0)
    for number in range(group.num_columns):
        chunk = group.column(number)
        start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
        with path.open("rb") as file:
            pages = list(read_pages(file, start, chunk.total_compressed_size))
        assert sum(page.values for page in pages) == 5000
        assert (pages[0].kind == DICTIONARY_PAGE) == chunk.has_dictionary_page
        # The footer counts the headers too, which have at most some 100 bytes.
        headers = chunk.total_uncompressed_size - sum(page.uncompressed for page in pages)
        assert 0 < headers < 200 * len(pages)
        assert headers == chunk.total_compressed_size - sum(page.compressed for page in pages)


@given(st.binary(min_size=1, max_size=200))
def test_damaged_headers_are_value_errors(content: bytes) -> None:
    try:
        for page in read_pages(io.BytesIO(content), 0, len(content)):
            assert page.uncompressed >= 0
    except ValueError:
        pass


@pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, -1), (2, 9), (2**63, 1), (-(2**63), 2**63)])
def test_a_column_chunk_outside_of_the_file_is_a_value_error(start: int, length: int) -> None:
    with pytest.raises(ValueError, match="outside of the file"):
        list(read_pages(io.BytesIO(b"0123456789"), start, length))
