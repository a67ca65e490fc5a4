"""Base models from a real server of S3 (moto)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from filelock import FileLock
from huggingface_hub import constants
from object_stores import BUCKET, SERVERS, ObjectStore, SlowProxy
from weights_sample import model_files, safetensors

from steps.models import locations, own_weights, weights_store
from steps.models.model import fetch_model
from steps.runtime.errors import BadInput, StepError

FETCH = "import sys; from steps.models.model import fetch_model; print(fetch_model(model=sys.argv[1]).revision)"


@pytest.fixture(scope="module")
def running() -> Iterator[ObjectStore]:
    with SERVERS["s3"]() as store:
        yield store


@pytest.fixture
def store(running: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    for name, value in running.environment(running.port).items():
        monkeypatch.setenv(name, value)
    return running


def put(store: ObjectStore, prefix: str, contents: dict[str, bytes]) -> str:
    for name, content in contents.items():
        store.put(f"{prefix}/{name}", content)
    return f"{store.scheme}://{BUCKET}/{prefix}"


def test_a_prefix_is_a_model_and_other_files_are_not_copied(store: ObjectStore) -> None:
    others = {
        "original/model.safetensors": b"",
        "pytorch_model.bin": b"",
        "consolidated.safetensors": b"",
        "a.py": b"",
    }
    model = put(store, "models/tiny", model_files() | others | {"chat/x.jinja": b"y"})
    base = fetch_model(model=f"{model}/")
    files = {path.relative_to(base.folder).as_posix() for path in base.folder.rglob("*") if path.is_file()}
    assert files == {*model_files(), "chat/x.jinja", own_weights.MARKER}
    assert (base.folder / "model.safetensors").read_bytes() == model_files()["model.safetensors"]
    assert base.revision.startswith("sha256:")
    assert base.folder.name.startswith("tiny-")


def test_the_tokenizer_is_copied_without_weights(store: ObjectStore) -> None:
    model = put(store, "tokenizer", model_files())
    from steps.models.model import fetch_tokenizer_folder

    folder = fetch_tokenizer_folder(model=model)
    assert not list(folder.glob("*.safetensors"))
    assert (folder / "tokenizer.json").is_file()
    assert (fetch_model(model=model).folder / "model.safetensors").is_file()


def test_changed_objects_are_another_copy_and_a_revision_must_match(store: ObjectStore) -> None:
    model = put(store, "changed", model_files(10))
    first = fetch_model(model=model)
    assert fetch_model(model=model) == first
    store.put("changed/model.safetensors", safetensors(10, b"\1"))  # the same size
    second = fetch_model(model=model)
    assert second.revision != first.revision
    assert (second.folder / "model.safetensors").read_bytes() == safetensors(10, b"\1")
    assert fetch_model(model=model, revision=first.revision) == first  # from its copy
    (first.folder / own_weights.MARKER).unlink()
    with pytest.raises(BadInput, match=f"has the digest {second.revision}, not {first.revision}"):
        fetch_model(model=model, revision=first.revision)


@pytest.mark.parametrize(
    ("contents", "prefix", "message"),
    [
        ({"a.txt": b""}, "bad/none", r"config.json not found, only a.txt"),
        ({"config.json": b"{}"}, "bad/file/config.json", "is a file, not a model"),
        ({"x.txt": b""}, "bad/absent/y", "not found"),
        (model_files() | {"model.safetensors": safetensors(99)[:-1]}, "bad/truncated", "is truncated"),
        (model_files() | {"config.json": b"{"}, "bad/json", "config.json is not a JSON object"),
        (
            {"config.json": model_files()["config.json"]},
            "bad/weights",
            "no weights in safetensors.*; no tokenizer",
        ),
    ],
)
def test_a_prefix_that_is_no_model_is_rejected_and_nothing_remains(
    store: ObjectStore, tmp_path: Path, contents: dict[str, bytes], prefix: str, message: str
) -> None:
    put(store, "/".join(prefix.split("/")[:2]), contents)
    with pytest.raises(BadInput, match=message) as caught:
        fetch_model(model=f"s3://{BUCKET}/{prefix}")
    assert caught.value.fix
    home = tmp_path / "home" / "argotune"
    assert not home.exists() or not [path for path in home.iterdir() if path.is_dir()]


def test_credentials_are_required(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(StepError) as caught:
        weights_store.resolve(locations.parse_store("s3://rows/x"), lambda seconds: None)
    assert "hush-s3" not in str(caught.value)


def test_a_killed_copy_is_resumed_and_has_the_same_digest(store: ObjectStore, tmp_path: Path) -> None:
    weights = safetensors(6_000_000, b"\5")
    model = put(store, "killed", model_files() | {"model.safetensors": weights})
    expected = own_weights.resolve(model)
    with SlowProxy(store.port, budget=2_000_000) as proxy:
        environment = {**os.environ, **store.environment(proxy.port), "HF_HOME": str(tmp_path / "home")}
        process = subprocess.Popen([sys.executable, "-c", FETCH, model], env=environment)
        assert proxy.exhausted.wait(120)
        partial = f".{own_weights.cache_folder(model, expected).name}.download/partial/model.safetensors.partial"
        wait_for_bytes(tmp_path / "home" / "argotune" / partial)
        process.send_signal(signal.SIGKILL)
        process.wait()
    base = fetch_model(model=model)
    assert base.revision == expected
    assert (base.folder / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("is_copied_now", [False, True])
def test_a_new_version_replaces_partial_copies_of_others(store: ObjectStore, *, is_copied_now: bool) -> None:
    model = put(store, "new", model_files())
    other = own_weights.cache_folder(model, f"sha256:{'0' * 64}")
    partial = other.with_name(f".{other.name}.download") / "partial" / "model.safetensors.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x")
    with FileLock(other.with_name(f".{other.name}.lock")) if is_copied_now else nullcontext():
        fetch_model(model=model)
    assert partial.exists() == is_copied_now


def wait_for_bytes(file: Path) -> None:
    """Wait until a download has written something."""
    import time

    deadline = time.monotonic() + 300
    while not (file.is_file() and file.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.02)
