"""Signatures of URLs are distinguished from parameters that select the file."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.runtime.signatures import without_signatures

AZURE = "sp=r&st={0}&se={0}&spr=https&sv=2026&sr=b&sig={0}"
AWS = (
    "X-Amz-Algorithm=A&X-Amz-Credential={0}&X-Amz-Date={0}&X-Amz-Expires={0}&X-Amz-SignedHeaders=h&X-Amz-Signature={0}"
)
GOOGLE = AWS.replace("Amz", "Goog")
CLOUDFRONT = "Expires={0}&Policy={0}&Signature={0}&Key-Pair-Id={0}"
AWS_V2 = "AWSAccessKeyId=a&Expires={0}&Signature={0}"
KINDS = (AZURE, AWS, GOOGLE, CLOUDFRONT, AWS_V2, "token={0}", "%73ig={0}")


@pytest.mark.parametrize("kind", KINDS)
@given(file=st.text("abc%20", max_size=5), times=st.tuples(st.integers(1), st.integers(1)))
def test_renewed_urls_are_equal_and_other_files_are_not(kind: str, file: str, times: tuple[int, int]) -> None:
    old, new = (f"https://a.example/x.parquet?file={file}&{kind.format(time)}#sha256=1" for time in times)
    assert without_signatures(old) == without_signatures(new) == f"https://a.example/x.parquet?file={file}#sha256=1"
    assert without_signatures(f"{old}\n{new}") == without_signatures(f"{new}\n{old}")
    for text in (json.dumps([old, old]), json.dumps({"plan": json.dumps([old])})):
        assert without_signatures(text) == without_signatures(
            text.replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1])
        )


@pytest.mark.parametrize(
    "text",
    [
        "https://a.example/x?file=1&expires=2",
        "https://a.example/x?se=1",
        "https://a.example/x?sr=1&expires=2&x-amz-date=3",
        "what?sig=1",
        "https://a.example/x",
    ],
)
def test_text_without_a_signature_stays(text: str) -> None:
    assert without_signatures({"urls": [text, 1, None]}) == {"urls": [text, 1, None]}


def test_a_token_leaves_parameters_that_other_signatures_cover() -> None:
    assert without_signatures("https://a.example/x?token=T&si=1&policy=2") == "https://a.example/x?si=1&policy=2"
