"""Weights are resolved to files, and weights of unknown files are rejected."""

from __future__ import annotations

import math

import pytest

from steps.data.file_weights import WeightError, resolve_weights

CHAT = "https://data.example.com/a%20b/chat.parquet?download=true#sha256=00"
CODE = "https://data.example.com/code/train.parquet"
MORE = "https://data.example.com/more/train.parquet"


@pytest.mark.parametrize(
    ("key", "weights"),
    [
        ("chat.parquet", [2.0, 1.0, 1.0]),
        ("a b/chat.parquet", [2.0, 1.0, 1.0]),
        (CHAT, [2.0, 1.0, 1.0]),
        ("https://data.example.com/a%20b/chat.parquet", [2.0, 1.0, 1.0]),
        ("code/train.parquet", [1.0, 2.0, 1.0]),
        ("data.example.com/more/train.parquet", [1.0, 1.0, 2.0]),
    ],
)
def test_file_is_selected_by_the_end_of_its_url(key: str, weights: list[float]) -> None:
    assert resolve_weights({key: 2.0}, [CHAT, CODE, MORE]) == (weights, [])
    assert resolve_weights({key: 2.0}, [MORE, CODE, CHAT]) == (weights[::-1], [])


def test_file_in_the_folder_precedes_one_in_a_subfolder() -> None:
    assert resolve_weights({"a.parquet": 3.0}, ["x/a.parquet", "a.parquet"]) == ([1.0, 3.0], [])


@pytest.mark.parametrize(
    ("weights", "fault"),
    [
        ({"chat.parqet": 2}, WeightError("chat.parqet", "no such file in the data", "did you mean chat.parquet?")),
        ({"hat.parquet": 2}, WeightError("hat.parquet", "no such file in the data", "did you mean chat.parquet?")),
        ({"x": 2}, WeightError("x", "no such file in the data", "use one of chat.parquet, train.parquet")),
        ({"": 2}, WeightError("", "no such file in the data", "use one of chat.parquet, train.parquet")),
        (
            {"train.parquet": 2},
            WeightError("train.parquet", f"matches 2 files: {CODE}, {MORE}", "use a longer path, or the whole URL"),
        ),
        (
            {"chat.parquet": 2, CHAT: 3},
            WeightError(CHAT, "the file already has a weight, as chat.parquet", "remove one of them"),
        ),
        ({"chat.parquet": -1}, WeightError("chat.parquet", "-1 is out of range", "use a number from 0 to 100")),
        ({"chat.parquet": math.nan}, WeightError("chat.parquet", "nan is out of range", "use a number from 0 to 100")),
        ({"chat.parquet": math.inf}, WeightError("chat.parquet", "inf is out of range", "use a number from 0 to 100")),
        (
            {"chat.parquet": 0, "code/train.parquet": 0, "more/train.parquet": 0},
            WeightError("", "all files have weight 0: no training rows remain", "increase one weight"),
        ),
    ],
)
def test_invalid_weights(weights: dict[str, float], fault: WeightError) -> None:
    assert resolve_weights(weights, [CHAT, CODE, MORE])[1] == [fault]


def test_all_errors_are_reported_without_secrets() -> None:
    signed = "https://me:hush@data.example.com/get?sig=hush&file="
    _, faults = resolve_weights({"a": -1, "get": 2, "b": 3}, [f"{signed}a", f"{signed}b"])
    assert [fault.key for fault in faults] == ["a", "get", "b"]
    assert "hush" not in str(faults)
    assert "2 files have this name: https://data.example.com/get" in faults[1].message
