"""The provenance of an adapter: its content, its reference to the image, and its listing in registries."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import requests
from registry_fixture import Answer, Front, Registry, Request, ref

from steps.models.adapter import adapter_digest
from steps.oci import oci_layout, registry
from steps.package.provenance import MEDIA_TYPE
from steps.package.settings import Result, Settings
from steps.package.step import outputs_intact, package
from steps.runtime import files

pytestmark = pytest.mark.usefixtures("docker_config")
SHA = "sha256:" + "a" * 64
COMMIT = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
CANARY = "hf_CanaryCanaryCanaryCanary1234567890"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the results of tune, evaluate and download."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    work = tmp_path / "work"
    (work / "adapter").mkdir(parents=True)
    (work / "adapter" / "adapter_config.json").write_text('{"r": 8}')
    (work / "adapter" / "adapter_model.safetensors").write_bytes(os.urandom(5000))
    digest = adapter_digest(work / "adapter")
    tuned = {"rank": 8, "method": "qlora", "work": str(work), "model": "/mnt/models/x", "model_config": {}}
    recorded(work, "tune", {**tuned, "data_digest": SHA}, {"adapter_digest": digest, "steps": 50, "train_loss": 2.3})
    recorded(work, "evaluate", {"adapter_digest": digest}, {"adapter_loss": 1.6, "base_loss": 5.3, "verdict": "pass"})
    sources = [{"from": "https://example.com/a.parquet", "rows": 600, "size": 16834, "sha256": SHA}]
    sources[0] |= {"weight": 2.0, "train_rows": 1080}
    files.write_json(work / "dataset" / "manifest.json", {"data_digest": SHA, "sources": sources})
    return work


def recorded(work: Path, step: str, settings: dict[str, Any], result: dict[str, Any]) -> None:
    content = {"step": step, "settings": settings, "result": result, "seconds": 60.4}
    content |= {"started": "2026-01-02T03:04:05+00:00", "versions": {"torch": "2.13.0", "peft": "0.21.2"}}
    files.write_json(work / "results" / f"{step}.json", content)


def given(work: Path, **more: Any) -> Settings:
    known = {"preset": "smollm2-135m-instruct", "model": "HuggingFaceTB/SmolLM2-135M-Instruct", "revision": COMMIT}
    return Settings(work=work, data_digest=SHA, settings_digest="sha256:s", **{**known, **more})


def statement(work: Path) -> dict[str, Any]:
    image = oci_layout.read_image(work / "image")
    [referrer] = image.referrers
    content: dict[str, Any] = json.loads(image.path(referrer.blobs[1]).read_bytes())
    return content


def test_content_of_the_statement(work: Path) -> None:
    result = package(given(work, image="r.example.com/team/adapter:1", push=False))
    attested = statement(work)
    assert (attested["_type"], attested["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    digest = {"sha256": result.image_digest.removeprefix("sha256:")}
    assert attested["subject"] == [{"name": "r.example.com/team/adapter", "digest": digest}]
    definition, details = (
        attested["predicate"]["buildDefinition"],
        attested["predicate"]["runDetails"],
    )
    assert definition["externalParameters"] == {
        "preset": "smollm2-135m-instruct",
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "revision": COMMIT,
        "method": "qlora",
        "rank": 8,
    }
    assert definition["internalParameters"] == {
        "dev.argotune.data.digest": SHA,
        "dev.argotune.settings.digest": "sha256:s",
        "dev.argotune.adapter.digest": adapter_digest(work / "adapter"),
    }
    base, data = definition["resolvedDependencies"]
    assert base["digest"] == {"gitCommit": COMMIT}
    assert base["uri"] == f"https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct/tree/{COMMIT}"
    assert (data["uri"], data["digest"]) == ("https://example.com/a.parquet", {"sha256": "a" * 64})
    assert data["annotations"] == {"rows": 600, "bytes": 16834, "weight": 2.0, "trainedRows": 1080}
    assert details["builder"]["version"] == {"torch": "2.13.0", "peft": "0.21.2"}
    assert details["metadata"] == {"startedOn": "2026-01-02T03:04:05Z", "finishedOn": "2026-01-02T03:05:05Z"}
    metrics = {item["name"]: item["annotations"] for item in details["byproducts"]}
    assert metrics["evaluate"] == {"adapter_loss": 1.6, "base_loss": 5.3, "verdict": "pass"}
    assert metrics["tune"]["steps"] == 50


def test_records_of_another_adapter_are_ignored(work: Path) -> None:
    (work / "adapter" / "adapter_config.json").write_text('{"r": 16}')
    files.write_json(work / "dataset" / "manifest.json", {"data_digest": "sha256:other", "sources": []})
    package(given(work))
    attested = statement(work)["predicate"]
    assert attested["runDetails"]["byproducts"] == []
    assert "rank" not in attested["buildDefinition"]["externalParameters"]
    assert [item["name"] for item in attested["buildDefinition"]["resolvedDependencies"]] == ["base model"]
    assert "metadata" not in attested["runDetails"]
    assert attested["runDetails"]["builder"]["version"]["python"]


def test_equal_records_give_equal_bytes(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = package(given(work))
    assert package(given(work)) == first
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    dated = package(given(work))
    assert dated.provenance_digest != first.provenance_digest
    assert "metadata" not in statement(work)["predicate"]["runDetails"]
    recorded_later = json.loads((work / "results" / "tune.json").read_text()) | {
        "started": "2027-01-01T00:00:00+00:00"
    }
    files.write_json(work / "results" / "tune.json", recorded_later)
    assert package(given(work)) == dated


def test_statement_has_no_secret(work: Path) -> None:
    kept = json.loads((work / "results" / "tune.json").read_text())
    kept["settings"] |= {"hub_token": CANARY, "training_arguments": {"note": f"token {CANARY}"}}
    files.write_json(work / "results" / "tune.json", kept)
    package(given(work))
    assert CANARY not in json.dumps(statement(work))


def listed(address: str, repository: str, subject: str) -> list[dict[str, Any]]:
    """Referrers as another client finds them: by the tag schema of the distribution-spec."""
    tag = subject.replace(":", "-")
    answer = requests.get(
        f"http://{address}/v2/{repository}/manifests/{tag}", headers={"Accept": oci_layout.INDEX}, timeout=30
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == oci_layout.INDEX
    entries: list[dict[str, Any]] = answer.json()["manifests"]
    return entries


def test_tag_in_a_registry_without_the_referrers_api(work: Path, open_registry: Registry) -> None:
    settings = given(work, image=f"{open_registry.address}/team/described:1")
    result = package(settings)
    [entry] = listed(open_registry.address, "team/described", result.image_digest)
    assert entry["artifactType"] == MEDIA_TYPE
    assert entry["digest"] == result.provenance_digest
    base = f"http://{open_registry.address}/v2/team/described"
    manifest = requests.get(f"{base}/manifests/{entry['digest']}", headers={"Accept": entry["mediaType"]}, timeout=30)
    assert f"sha256:{hashlib.sha256(manifest.content).hexdigest()}" == entry["digest"]
    assert manifest.json()["subject"]["digest"] == result.image_digest
    [layer] = manifest.json()["layers"]
    assert layer["annotations"] == {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"}
    assert requests.get(f"{base}/blobs/{layer['digest']}", timeout=30).json() == statement(work)
    assert outputs_intact(settings, result)


def test_other_referrers_stay_listed(work: Path, open_registry: Registry) -> None:
    address = open_registry.address
    settings = given(work, image=f"{address}/team/signed:1")
    result = package(settings)
    [ours] = listed(address, "team/signed", result.image_digest)
    other = {**ours, "artifactType": "application/vnd.example.signature", "digest": result.image_digest}
    index = {"schemaVersion": 2, "mediaType": oci_layout.INDEX, "manifests": [other]}
    tag = result.image_digest.replace(":", "-")
    url = f"http://{address}/v2/team/signed/manifests/{tag}"
    put = requests.put(url, json.dumps(index), headers={"Content-Type": oci_layout.INDEX}, timeout=30)
    assert put.status_code == 201
    for _ in range(2):
        package(settings)
        assert listed(address, "team/signed", result.image_digest) == [other, ours]


def test_no_tag_in_a_registry_with_the_referrers_api(work: Path, front: Front) -> None:
    def lists(request: Request, answer: Answer) -> Answer:
        subject = (
            json.loads(request.body).get("subject") if request.method == "PUT" and request.body[:1] == b"{" else None
        )
        return Answer(
            answer.status, answer.headers | ({"OCI-Subject": subject["digest"]} if subject else {}), answer.body
        )

    front.after = lists
    package(given(work, image=f"{front.address}/team/listing:1"))
    assert not [request for request in front.seen if "/manifests/sha256-" in request.path]


def test_rejected_statement_does_not_fail_the_push(
    work: Path, front: Front, capsys: pytest.CaptureFixture[str]
) -> None:
    front.before = lambda request: Answer(400) if b'"subject"' in request.body else None
    settings = given(work, image=f"{front.address}/team/old:1")
    result = package(settings)
    assert result == Result(result.image_digest, result.image_reference, result.size_bytes, True, "")
    assert "warning: the image has no provenance" in capsys.readouterr().out
    assert registry.manifest_exists(ref(f"{front.address}/team/old:1"))
    assert outputs_intact(settings, result)
