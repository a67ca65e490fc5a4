"""Queries of URLs are hidden in documents and states, and restored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflows.errors import InvalidInput
from workflows.runner.url_queries import FILE, UrlQueries

SECRETS = st.text(st.characters(exclude_characters='"#\\', exclude_categories=["Z", "C"]), min_size=1).map(
    lambda text: f"s3cr3t{text}"
)
URLS = st.builds("https://example.com/{}?sv=1&sig={}".format, st.sampled_from(["a", "b%20c", ""]), SECRETS)
TEXTS = st.one_of(
    st.text(),
    URLS,
    st.builds("{}#sha256=1".format, URLS),
    st.lists(URLS).map(json.dumps),
    st.lists(URLS).map(lambda urls: json.dumps({"plan": json.dumps(urls, ensure_ascii=False)}, ensure_ascii=False)),
    st.builds("see {}\nor {}".format, URLS, URLS),
)
DATA = st.recursive(
    st.one_of(st.none(), st.integers(), TEXTS),
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=8,
)


@settings(max_examples=300)
@given(data=DATA)
def test_hidden_data_has_no_query_and_is_restored(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("run")
    hidden = UrlQueries(folder).hide(data)
    assert "s3cr3t" not in json.dumps(hidden)
    assert UrlQueries(folder).restore(hidden) == data
    assert UrlQueries(folder).hide(data) == hidden


def test_a_lost_file_is_an_error(tmp_path: Path) -> None:
    queries = UrlQueries(tmp_path)
    hidden = queries.hide({"url": "https://example.com/?sig=1"})
    queries.delete()
    with pytest.raises(InvalidInput, match=r"url-queries.json: not found: .*\n +fix: start a new run"):
        UrlQueries(tmp_path).restore(hidden)
    assert UrlQueries(tmp_path).hide(hidden) == hidden


@pytest.mark.parametrize("text", ["", "{", "[]", '{"hidden-1": 1}', "\udcff"])
def test_a_damaged_file_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError):
        UrlQueries(tmp_path)
