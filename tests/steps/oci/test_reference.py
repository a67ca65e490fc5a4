from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.oci import reference
from steps.oci.reference import Reference
from steps.runtime.errors import BadInput

SHA = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("alpine", "docker.io/library/alpine"),
        ("team/app", "docker.io/team/app"),
        ("index.docker.io/app:1", "docker.io/library/app:1"),
        ("docker.io/team/app", "docker.io/team/app"),
        ("localhost/app", "localhost/app"),
        ("app:5000", "docker.io/library/app:5000"),
        ("localhost:5000/app", "localhost:5000/app"),
        ("myregistry.azurecr.io/phi-3/adapter_v2:0.0.1", "myregistry.azurecr.io/phi-3/adapter_v2:0.0.1"),
        (f"r.example.com/a/b@{SHA}", f"r.example.com/a/b@{SHA}"),
        (f"r.example.com:443/a/b:t@{SHA}", f"r.example.com:443/a/b:t@{SHA}"),
        ("[::1]:5000/app:_x", "[::1]:5000/app:_x"),
        ("Registry/app", "Registry/app"),
        ("r.io/a__b/c--d/e.f:" + "x" * 128, "r.io/a__b/c--d/e.f:" + "x" * 128),
        ("r.io/" + "a" * 255, "r.io/" + "a" * 255),
    ],
)
def test_good_references(text: str, full: str) -> None:
    assert str(reference.parse(text)) == full


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (" app", "white space"),
        ("r.io/a b", "white space"),
        ("docker://r.io/app:1", "write 'r.io/app:1'"),
        ("https://r.io/app", "write 'r.io/app'"),
        ("r.io/App", "use lower case: 'app'"),
        ("app:" + "x" * 129, "is not a tag"),
        ("app:", "is not a tag"),
        ("app:-x", "is not a tag"),
        ("app:täg", "is not a tag"),
        ("r.io/", "repository is missing"),
        ("r.io//app", "is not a repository"),
        ("r.io/-app", "is not a repository"),
        ("r.io/a___b", "is not a repository"),
        ("r.io/a..b", "is not a repository"),
        ("r.io/" + "a" * 256, "256 characters"),
        ("r.io:0/app", "port 0"),
        ("r.io:65536/app", "port 65536"),
        ("r.io:" + "9" * 5000 + "/app", "is out of range"),
        ("r_x.io/app", "not a host name"),
        ("-r.io/app", "not a host name"),
        ("app@sha256:abc", "is not a digest"),
        ("app@" + SHA.upper(), "is not a digest"),
        ("app@md5:" + "0" * 32, "is not a digest"),
    ],
)
def test_bad_references(text: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        reference.parse(text)
    assert says in str(caught.value)
    assert caught.value.fix
    assert len(str(caught.value)) < 800


def test_example_of_kaito_is_explained() -> None:
    with pytest.raises(BadInput) as caught:
        reference.parse("ACR_REPO_HERE.azurecr.io/IMAGE_NAME_HERE:0.0.1")
    assert "'ACR_REPO_HERE.azurecr.io' is not a host name" in str(caught.value)
    assert "repository 'IMAGE_NAME_HERE' has capitals" in str(caught.value)
    assert "use lower case: 'image_name_here'" in str(caught.value)


LABEL = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?", fullmatch=True)
COMPONENT = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)


@st.composite
def references(draw: st.DrawFn) -> Reference:
    labels = draw(st.lists(LABEL, min_size=2, max_size=3))
    port = draw(st.one_of(st.just(""), st.integers(1, 65535).map(lambda p: f":{p}")))
    registry = draw(st.one_of(st.just("localhost"), st.just(".".join(labels)))) + port
    return Reference(
        registry,
        "/".join(draw(st.lists(COMPONENT, min_size=1, max_size=4))),
        draw(st.one_of(st.just(""), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True))),
        draw(st.one_of(st.just(""), st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True))),
    )


@given(references())
def test_round_trip(given_reference: Reference) -> None:
    assert reference.parse(str(given_reference)) == given_reference


@given(st.text(max_size=60))
def test_any_text_parses_or_is_bad_input(text: str) -> None:
    try:
        parsed = reference.parse(text)
    except BadInput:
        return
    assert reference.parse(str(parsed)) == parsed
