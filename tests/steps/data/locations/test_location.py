"""Locations as users write them: what they mean, what is rejected, and that no text breaks the parser."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from steps.data.locations import patterns
from steps.data.locations.location import (
    SCHEMES,
    HttpLocation,
    HubLocation,
    InvalidLocation,
    ObjectLocation,
    parse,
)

SHA = "0f" * 32
CASES = {
    f"https://h.example/x.parquet?sig=hush#sha256={SHA}": HttpLocation("https://h.example/x.parquet?sig=hush"),
    "hf://datasets/openai/gsm8k": HubLocation("openai/gsm8k"),
    "hf://datasets/openai/gsm8k?config=main&split=train": HubLocation("openai/gsm8k", config="main", split="train"),
    "hf://datasets/o/n@v1.0/data/*.parquet": HubLocation("o/n", "v1.0", "data/*.parquet"),
    "hf://datasets/o/n@fe%2Fx": HubLocation("o/n", "fe/x"),
    "hf://datasets/o/n@refs/pr/7/x.csv": HubLocation("o/n", "refs/pr/7", "x.csv"),
    "hf://datasets/o/n@refs/convert/parquet/d/train": HubLocation("o/n", "refs/convert/parquet", "d/train"),
    f"s3://bucket/a b#c.parquet#sha256={SHA}": ObjectLocation("s3", "bucket", "a b#c.parquet"),
    "S3://bucket": ObjectLocation("s3", "bucket", ""),
    "gs://b.example.com/x/": ObjectLocation("gs", "b.example.com", "x/"),
    "az://rows/x%20y": ObjectLocation("az", "rows", "x%20y"),
    "abfs://rows/x": ObjectLocation("az", "rows", "x"),
    "abfss://rows@acct.dfs.core.windows.net/x": ObjectLocation("az", "rows", "x", "acct", "core.windows.net"),
    "abfss://rows@acct.blob.core.chinacloudapi.cn": ObjectLocation("az", "rows", "", "acct", "core.chinacloudapi.cn"),
}


@pytest.mark.parametrize("text", CASES)
def test_locations(text: str) -> None:
    location, digest = parse(f" {text}\n")
    assert location == CASES[text]
    assert digest == (f"sha256:{SHA}" if "#sha256=" in text else "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not 'a bare path'"),
        ("file:///etc/passwd", "not 'file'"),
        ("s3a://b/x", "not 's3a'"),
        ("s3://", "not the name of a bucket"),
        ("s3://../x", "not the name of a bucket"),
        ("s3://169.254.169.254:80/x", "contains credentials"),
        ("s3://key:hush@b/x", "contains credentials"),
        ("gs://token@b/x", "contains credentials"),
        ("abfss://rows:hush@acct.dfs.core.windows.net/x", "contains credentials"),
        ("abfss://rows@evil.example/x", "not an Azure storage account"),
        ("abfss://rows@acct.dfs.core.windows.net.evil.example/x", "not an Azure storage account"),
        ("az://rows/x?sig=hush", "options after ?"),
        ("s3://b/x/../y", "contains . or .."),
        ("hf://datasets/o/n/../../x", "contains . or .."),
        ("hf://datasets/../n", "contains . or .."),
        ("hf://datasets/o/n@..", "contains . or .."),
        ("s3://b/[z-a]", "pattern is invalid"),
        ("s3://b/x\x00", "control characters"),
        ("hf://models/o/n", "not a dataset"),
        ("hf://datasets/n", "not a dataset"),
        ("hf://datasets/o/n?token=hush", "unknown option"),
        ("hf://datasets/o/n/x?split=train", "has a path, and config or split"),
        ("hf://datasets/o/n?split=train[:10%]", "slices"),
        (f"s3://b#sha256={SHA}", "needs one file"),
        (f"hf://datasets/o/n/*#sha256={SHA}", "needs one file"),
        ("https://[::1/x", "invalid URL"),
        ("https://h/x#top", "not a checksum"),
    ],
)
def test_invalid_locations(text: str, message: str) -> None:
    with pytest.raises(InvalidLocation, match=message.replace("?", r"\?")) as raised:
        parse(text)
    assert raised.value.fix and "hush" not in str(raised.value)


TEXT = st.text(st.sampled_from("ab0/@:?#[]{}*%=&.- \n\\_é") | st.characters(), max_size=40)


@given(st.sampled_from([*SCHEMES, "ftp", ""]), st.sampled_from(["://", ":", ""]), TEXT)
@example("hf", "://", "datasets/a/b@")
@example("s3", "://", "a/{")
def test_every_text_is_a_location_or_invalid(scheme: str, separator: str, text: str) -> None:
    try:
        location, digest = parse(f"{scheme}{separator}{text}")
    except InvalidLocation as error:
        assert error.fix
        return
    assert digest == "" or len(digest) == 71
    if not isinstance(location, HttpLocation):
        patterns.matches(location.path, "x/y")
        again, _ = parse(location.shown)
        assert again.shown == location.shown


PATHS = st.lists(st.text(st.sampled_from("abc.-_ 1"), min_size=1, max_size=5), min_size=1, max_size=4).map("/".join)


@given(PATHS)
def test_patterns_of_a_path(path: str) -> None:
    folders = path.count("/")
    assert patterns.matches(path, path) and not patterns.is_pattern(path)
    assert patterns.matches("**", path) and patterns.matches("**/*", path)
    assert patterns.matches("/".join(["*"] * (folders + 1)), path)
    assert not patterns.matches("/".join(["*"] * (folders + 2)), path)
    assert patterns.matches(f"{{{path},other}}", path) and not patterns.matches(f"{path}?", path)
    assert patterns.literal_folder(f"{path}/*.x") == path


@given(TEXT, PATHS)
def test_valid_patterns_never_fail(pattern: str, path: str) -> None:
    if patterns.is_valid(pattern):
        assert patterns.matches(pattern, path) in (True, False)
