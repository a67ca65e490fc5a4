from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from registry_fixture import Front, Registry, Request

from steps.models.adapter import adapter_digest
from steps.oci import oci_layout, reference, registry
from steps.package import lineage
from steps.package.lineage import Lineage
from steps.package.settings import Result, Settings
from steps.package.step import outputs_intact, package
from steps.runtime.errors import BadInput, StepError
from steps.runtime.retry import RetryPolicy

pytestmark = pytest.mark.usefixtures("docker_config")
MB = 1024 * 1024


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    return work_of(tmp_path / "work", 300_000)


def work_of(folder: Path, size: int) -> Path:
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_config.json").write_text('{"r": 8}')
    with (folder / "adapter" / "adapter_model.safetensors").open("wb") as file:
        for _ in range(0, size, MB):
            file.write(os.urandom(min(size, MB)))
    return folder


def as_program(*flags: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "steps.package", *flags]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def outputs(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_image_has_the_lineage_of_the_adapter(work: Path) -> None:
    digest = adapter_digest(work / "adapter")
    result = package(
        Settings(
            work=work,
            preset="phi-4",
            model="microsoft/phi-4",
            revision="abc",
            adapter_digest=digest,
            data_digest="sha256:d",
            annotations={"com.example.team": "a", "org.opencontainers.image.title": "My title"},
        )
    )
    image = oci_layout.read_image(work / "image")
    expected = f"oci:{work}/image:adapter"
    [statement] = image.referrers
    assert result == Result(image.manifest.digest, expected, image.size, False, statement.manifest.digest)
    assert image.annotations == {
        "sh.kaito.model.name": "phi-4",
        "org.opencontainers.image.title": "My title",
        "dev.argotune.base.model": "microsoft/phi-4",
        "dev.argotune.base.revision": "abc",
        "dev.argotune.data.digest": "sha256:d",
        "dev.argotune.adapter.digest": digest,
        "com.example.team": "a",
    }


def test_local_model_folder_is_hidden(work: Path) -> None:
    package(Settings(work=work, preset="smollm2-135m-instruct", model="/home/me/models/smollm2"))
    annotations = oci_layout.read_image(work / "image").annotations
    assert annotations["dev.argotune.base.model"] == "smollm2-135m-instruct"
    assert not any("/home" in value for value in annotations.values())


def test_push_is_optional(work: Path, open_registry: Registry) -> None:
    where = f"{open_registry.address}/choice:2.0"
    kept = package(Settings(work=work, image=where, push=False))
    assert (kept.pushed, kept.image_reference) == (False, f"oci:{work}/image:2.0")
    assert not registry.manifest_exists(reference.parse(where))
    pushed = package(Settings(work=work, image=where))
    assert pushed.pushed
    assert pushed.image_reference == f"{open_registry.address}/choice@{pushed.image_digest}"
    assert pushed.image_digest == kept.image_digest
    assert registry.manifest_exists(reference.parse(where))


def test_adapter_is_copied_to_the_output_volume(work: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    given = Settings(work=work, output=volume, data_digest="sha256:d", settings_digest="sha256:s")
    result = package(given)
    digest = adapter_digest(work / "adapter")
    assert adapter_digest(volume) == digest
    names = ["adapter_config.json", "adapter_model.safetensors", "lineage.json"]
    assert sorted(path.name for path in volume.iterdir()) == names
    assert lineage.read_folder_lineage(volume) == Lineage("sha256:d", "sha256:s", digest)
    assert outputs_intact(given, result)
    (volume / "lineage.json").unlink()
    assert not outputs_intact(given, result)
    package(given)
    (volume / "adapter_config.json").write_text("{}")
    assert not outputs_intact(given, result)


def test_a_replaced_adapter_is_named(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Workspaces can share a claim by mistake."""
    given = Settings(work=work, output=tmp_path / "volume")
    package(given)
    package(given)
    assert "replacing" not in capsys.readouterr().out, "it is the same adapter"
    replaced = adapter_digest(work / "adapter")
    (work / "adapter" / "adapter_model.safetensors").write_bytes(b"another")
    package(given)
    assert f"replacing adapter {replaced} in {tmp_path / 'volume'}" in capsys.readouterr().out


def test_moving_tag_is_pushed_last(work: Path, front: Front) -> None:
    """Somebody who pulls it meanwhile gets the old adapter or the new one, never a part; a kill leaves the old one."""
    moving, derived = f"{front.address}/team/moved:stable", f"{front.address}/team/moved:stable-0123456789ab"
    given = Settings(work=work, image=derived, moving_image=moving, data_digest="sha256:d", settings_digest="sha256:s")
    result = package(given)
    puts = [request.path.rpartition("/")[2] for request in front.seen if is_manifest(request)]
    listed = result.image_digest.replace(":", "-")
    assert puts == ["stable-0123456789ab", result.provenance_digest, listed, "stable"]
    uploads = [request for request in front.seen if request.method == "POST"]
    assert len(uploads) == 4, "layer, config, the statement and its empty config are sent once"
    for tag in (moving, derived):
        found = lineage.read_image_lineage(reference.parse(tag))
        assert found is not None
        assert found[0].digest == result.image_digest
        assert found[1] == Lineage("sha256:d", "sha256:s", adapter_digest(work / "adapter"))


def is_manifest(request: Request) -> bool:
    return request.method == "PUT" and "/manifests/" in request.path


def test_moving_image_requires_an_image(work: Path) -> None:
    with pytest.raises(BadInput, match="pass --image"):
        package(Settings(work=work, moving_image="r.io/app:1"))


def test_all_bad_input_is_reported_and_nothing_written(work: Path) -> None:
    with pytest.raises(BadInput) as caught:
        package(Settings(work=work, image="r.io/App:1", annotations={"dev.argotune.x": "1", "a key": "2"}))
    for text in ("'App' has capitals", "'dev.argotune.x' is set by this step", "'a key' is not a valid key"):
        assert text in str(caught.value)
    with pytest.raises(BadInput, match="has a digest"):
        package(Settings(work=work, image="r.io/app@sha256:" + "0" * 64))
    with pytest.raises(BadInput, match="not sha256:1234 from tune"):
        package(Settings(work=work, adapter_digest="sha256:1234"))
    (work / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(BadInput, match=r"adapter_config\.json not found in .*adapter\n"):
        package(Settings(work=work))
    assert [p.name for p in work.iterdir()] == ["adapter"]


def test_program(work: Path, tmp_path: Path, password_registry: Registry, log_in: Callable[..., None]) -> None:
    where = f"{password_registry.address}/program:1.0"
    flags = ("--work", work, "--image", where, "--preset", "phi-4", "--annotations", '{"a": "b"}')
    refused = as_program(*flags)
    assert refused.returncode == 2
    assert "none found" in refused.stderr and "Traceback" not in refused.stderr
    assert f"the image is kept in {work}/image" in refused.stderr
    [layer] = (oci_layout.read_image(work / "image")).layers
    built = oci_layout.blob_path(work / "image", layer.digest).stat().st_mtime_ns

    log_in(password_registry.address)
    progress = tmp_path / "progress"
    out = {"ARGOTUNE_OUTPUTS": str(tmp_path / "out"), "ARGO_PROGRESS_FILE": str(progress)}
    first = as_program(*flags, **out)
    assert first.returncode == 0, first.stderr
    assert oci_layout.blob_path(work / "image", layer.digest).stat().st_mtime_ns == built
    result = outputs(tmp_path / "out")
    digest = result["image-digest"]
    assert result["image-reference"] == f"{password_registry.address}/program@{digest}"
    assert result["pushed"] == "true"
    assert progress.read_text() == "100/100\n"

    again = as_program(*flags, **out)
    assert "already done" in again.stdout
    assert password_registry.requests("PUT", "/program/manifests/") == 3
    assert outputs(tmp_path / "out") == result

    oci_layout.blob_path(work / "image", layer.digest).write_bytes(b"damaged")
    repeated = as_program(*flags, **out)
    assert repeated.returncode == 0 and "already done" not in repeated.stdout
    assert outputs(tmp_path / "out") == result
    oci_layout.read_image(work / "image")


def test_image_deleted_from_the_registry_is_pushed_again(work: Path, open_registry: Registry) -> None:
    flags = ("--work", work, "--image", f"{open_registry.address}/gone:1.0")
    assert as_program(*flags).returncode == 0
    kept = json.loads((work / "results" / "package.json").read_text())
    stored = open_registry.log.parent / "data/docker/registry/v2/repositories/gone/_manifests/revisions"
    (stored / kept["result"]["image_digest"].replace(":", "/") / "link").unlink()
    again = as_program(*flags)
    assert again.returncode == 0 and "already done" not in again.stdout
    assert registry.manifest_exists(reference.parse(kept["result"]["image_reference"]))


def test_unreachable_registry_keeps_the_image(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steps.oci.registry_client.RETRY", RetryPolicy(max_attempts=1))
    with pytest.raises(StepError) as caught:
        package(Settings(work=work, image="localhost:1/app:1"))
    assert caught.value.exit_code == 1
    assert f"the image is kept in {work}/image; a rerun pushes it" in str(caught.value)
    oci_layout.read_image(work / "image")


PEAK = """
import resource, sys
from pathlib import Path
from steps.oci import registry
from steps.package.settings import Settings
from steps.package.step import package
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
package(Settings(work=Path(sys.argv[1]), image=sys.argv[2]))
print("grew", peak() - before)
"""


@pytest.mark.slow
def test_large_adapter_needs_little_memory(
    tmp_path: Path, open_registry: Registry, needs_tool: Callable[[str], str], record_property: Callable[..., None]
) -> None:
    work = work_of(tmp_path / "work", 200 * MB)
    started = time.monotonic()
    command = [sys.executable, "-c", PEAK, work, f"{open_registry.address}/large:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    record_property("seconds", time.monotonic() - started)
    assert int(done.stdout.rpartition("grew ")[2]) < 60
    back = registry.pull_adapter(reference.parse(f"{open_registry.address}/large:1"), tmp_path / "back")
    assert adapter_digest(back) == adapter_digest(work / "adapter")
