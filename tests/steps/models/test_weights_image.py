"""Base models from images in a real registry."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from registry_fixture import Answer, Front, Registry, Request
from weights_sample import model_files, push_image, safetensors, tar_layer

from steps.models import locations, own_weights, weights_image
from steps.models.model import fetch_model
from steps.runtime.errors import BadInput, StepError

FETCH = "import sys; from steps.models.model import fetch_model; print(fetch_model(model=sys.argv[1]).folder)"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(locations.CONFIG_VARIABLE, raising=False)
    return tmp_path / "home"


def below(root: str, contents: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{root}/{name}": content for name, content in contents.items()}


@pytest.mark.parametrize("root", [*weights_image.ROOTS, "models/tiny"])
def test_the_directories_of_kaito_and_kserve_are_found(open_registry: Registry, tmp_path: Path, root: str) -> None:
    name = f"{open_registry.address}/weights/{root.replace('/', '-')}:1"
    digest = push_image(tmp_path, name, [tar_layer(below(root, model_files()) | {"etc/config.json": b"{}"})])
    base = fetch_model(model=f"oci://{name}")
    assert {path.name: path.read_bytes() for path in base.folder.iterdir() if path.name != own_weights.MARKER} == (
        model_files()
    )
    assert (base.repository, base.revision) == (f"oci://{name}", digest)
    assert digest.removeprefix("sha256:")[:16] in base.folder.name


def test_an_artifact_of_files_is_a_model(open_registry: Registry, tmp_path: Path) -> None:
    name, contents = f"{open_registry.address}/weights/artifact:1", model_files() | {"run.py": b"import os"}
    push_image(tmp_path, name, list(contents.values()), titles=[f"phi/{file}" for file in contents])
    base = fetch_model(model=f"oci://{name}")
    assert sorted(path.name for path in base.folder.iterdir()) == sorted([*model_files(), own_weights.MARKER])


def test_layers_replace_and_hide_files_of_lower_ones_and_code_is_skipped(
    open_registry: Registry, tmp_path: Path
) -> None:
    name, root = f"{open_registry.address}/weights/layers:1", "workspace/weights"
    lower = tar_layer(below(root, model_files(10) | {"a.safetensors": safetensors(3), "modeling.py": b"evil"}))
    upper = {"model.safetensors": safetensors(20), ".wh.a.safetensors": b""}
    links = {"workspace/vllm/weights": "/workspace/weights", f"{root}/x.bin": "/etc/passwd"}
    push_image(tmp_path, name, [lower, tar_layer(below(root, upper), links)])
    folder = fetch_model(model=f"oci://{name}").folder
    assert (folder / "model.safetensors").read_bytes() == safetensors(20)
    assert not {"a.safetensors", "modeling.py", "x.bin"} & {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("contents", "links", "message"),
    [
        (below("app", model_files()), {}, "no config.json in /workspace/weights"),
        (below("models/a", model_files()) | below("models/b", model_files()), {}, "several models: /models/a"),
        (below("workspace/weights", model_files()) | {"workspace/weights/../../x.json": b""}, {}, "leads out"),
        (below("models", model_files()), {"models/a.safetensors": "/etc/passwd"}, "neither a regular file"),
        (below("models", model_files() | {"model.safetensors": safetensors(9)[:-4]}), {}, "is truncated"),
        (below("models", model_files() | {"config.json": b"[]"}), {}, "config.json is not a JSON object"),
        (below("models", model_files(architectures=None)), {}, "names no architecture"),
        (
            below(
                "models", model_files() | {"model.safetensors.index.json": b'{"weight_map": {"w": "b.safetensors"}}'}
            ),
            {},
            "missing b.safetensors",
        ),
        (
            below("models", {k: v for k, v in model_files().items() if k != "tokenizer.json"}),
            {},
            "no tokenizer",
        ),
    ],
)
def test_an_image_that_is_no_model_is_rejected_and_nothing_remains(
    open_registry: Registry,
    tmp_path: Path,
    home: Path,
    contents: dict[str, bytes],
    links: dict[str, str],
    message: str,
) -> None:
    name = f"{open_registry.address}/weights/bad:1"
    push_image(tmp_path, name, [tar_layer(contents, links)])
    with pytest.raises(BadInput, match=message) as caught:
        fetch_model(model=f"oci://{name}")
    assert caught.value.fix
    assert not [path for path in (home / "argotune").iterdir() if path.is_dir()]


def test_a_title_that_leads_out_of_the_directory_is_rejected(open_registry: Registry, tmp_path: Path) -> None:
    name = f"{open_registry.address}/weights/title:1"
    for title in ("../x.json", "/x.json", "a/../../x.json", f"{'a' * 300}.json"):
        push_image(tmp_path, name, [b"{}"], titles=[title])
        with pytest.raises(BadInput, match="cannot be written"):
            fetch_model(model=f"oci://{name}")


def test_weights_of_another_architecture_than_the_preset_are_rejected(open_registry: Registry, tmp_path: Path) -> None:
    name = f"{open_registry.address}/weights/other:1"
    push_image(tmp_path, name, [tar_layer(below("models", model_files()))])
    with pytest.raises(BadInput, match=r"not the model of preset smollm2-135m-instruct: hidden_size is 64") as caught:
        fetch_model("smollm2-135m-instruct", f"oci://{name}")
    assert "argotune presets add" in caught.value.fix


def test_a_copy_is_used_again_and_a_moved_tag_is_another_copy(open_registry: Registry, tmp_path: Path) -> None:
    name = f"{open_registry.address}/weights/moved:1"
    first = push_image(tmp_path, name, [tar_layer(below("models", model_files(1)))])
    copy = fetch_model(model=f"oci://{name}").folder
    (copy / "tokenizer.json").write_text("[]")  # the same size: a copy is not read again
    assert fetch_model(model=f"oci://{name}").folder == copy
    second = push_image(tmp_path, name, [tar_layer(below("models", model_files(2)))])
    assert fetch_model(model=f"oci://{name}").revision == second
    blobs = open_registry.requests("GET", "/weights/moved/")
    pinned = fetch_model(model=f"oci://{name}", revision=first)
    assert (pinned.folder, open_registry.requests("GET", "/weights/moved/")) == (copy, blobs)
    (copy / "tokenizer.json").unlink()
    assert (fetch_model(model=f"oci://{name}", revision=first).folder / "tokenizer.json").read_text() == "{}"


def test_a_digest_is_required_as_revision() -> None:
    with pytest.raises(BadInput, match="is not a digest"):
        fetch_model(model="oci://a.example/b:1", revision="main")


def test_the_credentials_are_those_of_the_model(
    password_registry: Registry,
    tmp_path: Path,
    docker_config: Path,
    log_in: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"{password_registry.address}/weights/private:1"
    log_in(password_registry.address)
    push_image(tmp_path, name, [tar_layer(below("models", model_files()))])
    secret = docker_config.rename(tmp_path / "secret")
    with pytest.raises(BadInput, match=r"(?i)denie|unauthorized|credentials|log in"):
        fetch_model(model=f"oci://{name}")
    monkeypatch.setenv(locations.CONFIG_VARIABLE, str(secret))
    assert own_weights.resolve(f"oci://{name}") == fetch_model(model=f"oci://{name}").revision


def test_a_killed_copy_is_resumed_and_has_the_same_digest(front: Front, tmp_path: Path, home: Path) -> None:
    root = "workspace/weights"
    shard = safetensors(3_000_000, b"\7")
    layers = [tar_layer(below(root, model_files())), tar_layer({f"{root}/b.safetensors": shard})]
    name = f"{front.address}/weights/killed:1"
    digest = push_image(tmp_path, name, layers)
    processes: list[subprocess.Popen[str]] = []

    def kill(request: Request) -> Answer | None:
        blobs = [seen for seen in front.seen if seen.method == "GET" and "/blobs/" in seen.path]
        if request.method == "GET" and "/blobs/" in request.path and len(blobs) == 3:
            processes[0].send_signal(signal.SIGKILL)
            processes[0].wait()
        return None

    front.seen.clear()
    front.before = kill
    environment = {**os.environ, "HF_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", FETCH, f"oci://{name}"]
    processes.append(subprocess.Popen(command, env=environment, text=True))
    assert processes[0].wait() == -signal.SIGKILL
    front.before = lambda request: None
    assert [path for path in (home / "argotune").iterdir() if path.is_dir()] != []
    base = fetch_model(model=f"oci://{name}")
    assert base.revision == digest
    assert (base.folder / "b.safetensors").read_bytes() == shard
    fetched = [seen.path for seen in front.seen if seen.method == "GET" and "/blobs/" in seen.path]
    assert len(fetched) == len(set(fetched)) + 1  # only the blob of the kill is requested twice
    assert [path.name for path in (home / "argotune").iterdir() if path.is_dir()] == [base.folder.name]


def test_a_partial_layer_is_continued_with_a_range(front: Front, tmp_path: Path) -> None:
    layer = tar_layer(below("models", model_files(100_000)))
    name = f"{front.address}/weights/range:1"
    digest = push_image(tmp_path, name, [layer])
    weights_part(tmp_path, layer).write_bytes(layer[:70_000])
    folder = weights_image.download(locations.parse_image(f"oci://{name}", digest), tmp_path / "area", print)
    ranges = [seen.headers["range"] for seen in front.seen if "range" in seen.headers]
    assert (ranges, (folder / "model.safetensors").read_bytes()) == (["bytes=70000-"], safetensors(100_000))


def test_a_damaged_part_of_a_layer_is_downloaded_again(front: Front, tmp_path: Path, waits: list[float]) -> None:
    layer = tar_layer(below("models", model_files(100_000)))
    name = f"{front.address}/weights/part:1"
    digest = push_image(tmp_path, name, [layer])
    part = weights_part(tmp_path, layer)
    part.write_bytes(b"x" * 70_000)
    folder = weights_image.download(locations.parse_image(f"oci://{name}", digest), tmp_path / "area", waits.append)
    assert (folder / "model.safetensors").read_bytes() == safetensors(100_000)
    assert len(waits) == 1


def weights_part(tmp_path: Path, layer: bytes) -> Path:
    """Return the file of an incomplete layer in ``area``."""
    file = tmp_path / "area" / "layout" / "blobs" / "sha256" / f"{hashlib.sha256(layer).hexdigest()}.partial"
    file.parent.mkdir(parents=True)
    return file


def test_a_damaged_layer_is_rejected(front: Front, tmp_path: Path) -> None:
    name = f"{front.address}/weights/damaged:1"
    push_image(tmp_path, name, [tar_layer(below("models", model_files(5000)))])

    def damage(request: Request, answer: Answer) -> Answer:
        if request.method == "GET" and "/blobs/" in request.path:
            answer.body = answer.body[:-1] + bytes([answer.body[-1] ^ 1])
        return answer

    front.after = damage
    with pytest.raises(StepError, match="does not match"):
        fetch_model(model=f"oci://{name}")
