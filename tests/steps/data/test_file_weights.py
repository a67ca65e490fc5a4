"""Which file a weight is of, and what is said when it is of none."""

from __future__ import annotations

import math

import pytest

from steps.data.file_weights import Fault, of_files

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
def test_a_file_is_named_by_the_end_of_its_address(key: str, weights: list[float]) -> None:
    assert of_files({key: 2.0}, [CHAT, CODE, MORE]) == (weights, [])
    assert of_files({key: 2.0}, [MORE, CODE, CHAT]) == (weights[::-1], [])


def test_a_file_in_the_folder_itself_is_meant_before_one_further_below() -> None:
    assert of_files({"a.parquet": 3.0}, ["x/a.parquet", "a.parquet"]) == ([1.0, 3.0], [])


@pytest.mark.parametrize(
    ("weights", "fault"),
    [
        ({"chat.parqet": 2}, Fault("chat.parqet", "is no file of the data", "did you mean chat.parquet?")),
        ({"hat.parquet": 2}, Fault("hat.parquet", "is no file of the data", "did you mean chat.parquet?")),
        ({"x": 2}, Fault("x", "is no file of the data", "there are chat.parquet, train.parquet")),
        ({"": 2}, Fault("", "is no file of the data", "there are chat.parquet, train.parquet")),
        (
            {"train.parquet": 2},
            Fault("train.parquet", f"means 2 files: {CODE}, {MORE}", "write more of the path, or the whole address"),
        ),
        (
            {"chat.parquet": 2, CHAT: 3},
            Fault(CHAT, "the file has a weight already, as chat.parquet", "keep one of them"),
        ),
        ({"chat.parquet": -1}, Fault("chat.parquet", "-1 is no weight", "write a number from 0 to 100")),
        ({"chat.parquet": math.nan}, Fault("chat.parquet", "nan is no weight", "write a number from 0 to 100")),
        ({"chat.parquet": math.inf}, Fault("chat.parquet", "inf is no weight", "write a number from 0 to 100")),
        (
            {"chat.parquet": 0, "code/train.parquet": 0, "more/train.parquet": 0},
            Fault("", "all files have the weight 0: no row is left to train on", "give one of them more"),
        ),
    ],
)
def test_weights_that_are_of_no_file_or_are_none(weights: dict[str, float], fault: Fault) -> None:
    assert of_files(weights, [CHAT, CODE, MORE])[1] == [fault]


def test_all_faults_are_found_and_say_nothing_secret() -> None:
    signed = "https://me:hush@data.example.com/get?sig=hush&file="
    _, faults = of_files({"a": -1, "get": 2, "b": 3}, [f"{signed}a", f"{signed}b"])
    assert [fault.key for fault in faults] == ["a", "get", "b"]
    assert "hush" not in str(faults)
    assert "2 files are called so: https://data.example.com/get" in faults[1].message
