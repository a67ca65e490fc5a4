"""Comparison of data and settings with the live adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from registry_fixture import Answer, Front, Registry

from steps.check.settings import Result, Settings
from steps.check.step import check, compute_settings_digest
from steps.oci import reference
from steps.package import lineage
from steps.package import step as package
from steps.package.lineage import Lineage
from steps.runtime.errors import BadInput

pytestmark = pytest.mark.usefixtures("docker_config")
DATA = "sha256:" + "d" * 64


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder with an adapter that a tune step could have made."""
    adapter = tmp_path / "work" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"r": 8}')
    (adapter / "adapter_model.safetensors").write_bytes(b"weights of " + str(tmp_path).encode())
    return tmp_path / "work"


def settings(work: Path, **flags: Any) -> Settings:
    return Settings(work=work, **{"preset": "phi-4", "rank": 8, "data_digest": DATA, **flags})


def package_adapter(work: Path, given: Settings, result: Result) -> package.Result:
    """Package an adapter, as a run does after the gate passes."""
    return package.package(
        package.Settings(
            work=work,
            image=result.image,
            moving_image=given.image,
            data_digest=given.data_digest,
            settings_digest=result.settings_digest,
            output=given.output,
        )
    )


@pytest.fixture(params=["image", "volume"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Flags of the check step for the destination of adapters."""
    if request.param == "volume":
        return {"output": tmp_path / "volume"}
    registry: Registry = request.getfixturevalue("open_registry")
    return {"image": f"{registry.address}/team/{tmp_path.name.lower().strip('_')}:stable"}


def test_first_run_has_no_live_adapter(work: Path, place: dict[str, Any]) -> None:
    result = check(settings(work, **place))
    assert (result.changed, result.previous, result.difference) == (True, "", "no live adapter")


def test_unchanged_run_is_skipped(work: Path, place: dict[str, Any]) -> None:
    given = settings(work, **place)
    pushed = package_adapter(work, given, check(given))
    result = check(given)
    assert (result.changed, result.difference) == (False, "nothing")
    expected = pushed.image_reference if given.image else str(given.output)
    assert result.previous == expected


@pytest.mark.parametrize(
    "news",
    [{"data_digest": "sha256:" + "e" * 64}, {"rank": 16}, {"lora_config": {"use_rslora": True}}, {"seed": 1}],
    ids=["data", "rank", "map", "seed"],
)
def test_new_data_or_settings_count_as_changed(work: Path, place: dict[str, Any], news: dict[str, Any]) -> None:
    given = settings(work, **place)
    first = check(given)
    package_adapter(work, given, first)
    result = check(settings(work, **(place | news)))
    assert result.changed
    assert result.previous
    assert result.difference == ("data" if "data_digest" in news else "settings")
    assert not given.image or result.image != first.image


def test_tag_is_derived_from_the_digests(work: Path) -> None:
    derived = [check(settings(work, image=f"r.io/team/a{tag}", push=False)).image for tag in (":1.0", ":1.0", "")]
    assert derived[0] == derived[1]
    name, _, digits = derived[0].rpartition("-")
    assert name == "r.io/team/a:1.0"
    assert derived[2] == f"r.io/team/a:latest-{digits}"
    assert len(digits) == 12
    assert reference.parse(check(settings(work, image=f"r.io/a:{'t' * 128}", push=False)).image)


def test_registry_is_not_queried_without_push(work: Path) -> None:
    result = check(settings(work, image="127.0.0.1:9/team/a:1", push=False))
    assert (result.changed, result.previous) == (True, "")


def test_rejection_by_the_registry_is_an_error_and_no_change(work: Path, front: Front) -> None:
    front.before = lambda request: Answer(403)
    with pytest.raises(BadInput, match=front.address):
        check(settings(work, image=f"{front.address}/team/a:1"))


def test_incomplete_copy_is_not_the_live_adapter(work: Path, tmp_path: Path) -> None:
    given = settings(work, output=tmp_path / "volume")
    package_adapter(work, given, check(given))
    (tmp_path / "volume" / "adapter_model.safetensors").write_bytes(b"of the next adapter")
    result = check(given)
    assert (result.changed, result.previous) == (True, "")


def test_adapter_without_lineage_is_live_with_unknown_settings(work: Path, tmp_path: Path) -> None:
    given = settings(work, output=tmp_path / "volume")
    package_adapter(work, given, check(given))
    (tmp_path / "volume" / "lineage.json").unlink()
    result = check(given)
    assert (result.changed, result.previous) == (True, str(tmp_path / "volume"))


@pytest.mark.parametrize("damage", ["", "[]", '{"x": 1}'])
def test_damaged_lineage_is_ignored(work: Path, tmp_path: Path, damage: str) -> None:
    given = settings(work, output=tmp_path / "volume")
    package_adapter(work, given, check(given))
    (tmp_path / "volume" / "lineage.json").write_text(damage)
    assert lineage.read_folder_lineage(tmp_path / "volume") is None


def test_spelling_of_numbers_does_not_change_the_settings(work: Path) -> None:
    same = [settings(work, training_arguments=json.loads(text)) for text in ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}')]
    assert compute_settings_digest(same[0]) == compute_settings_digest(same[1])
    assert compute_settings_digest(settings(work, learning_rate="1e-3")) == compute_settings_digest(
        settings(work, learning_rate=0.001)
    )


def test_data_digest_is_required(work: Path) -> None:
    with pytest.raises(BadInput, match="run the download step and pass"):
        check(settings(work, data_digest=""))


def test_lineage_survives_the_annotations_of_an_image() -> None:
    known = Lineage("sha256:1", "sha256:2", "sha256:3")
    assert Lineage.from_annotations(known.annotations() | {"other": "x"}) == known
    assert Lineage.from_annotations({}) == Lineage()
