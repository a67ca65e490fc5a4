from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from steps.models.adapter import adapter_digest
from steps.promote.settings import Result, Settings
from steps.promote.step import outputs_intact, promote
from steps.runtime import entrypoint, files
from steps.runtime.errors import BadInput, GateFailed

REFERENCES = ("report/train.jsonl", "report/evaluation.json", "results/tune.json", "results/evaluate.json")


def candidate(work: Path, name: str, loss: float, verdict: str = "pass") -> dict[str, str]:
    """A candidate as its tune and evaluate leave it, and what Argo gathers of it."""
    folder = work / "candidates" / name
    files.write_text(folder / "adapter" / "adapter_config.json", json.dumps({"r": 8, "of": name}))
    files.write_text(folder / "adapter" / "adapter_model.safetensors", f"weights of {name}")
    files.write_text(folder / "adapter" / "tokenizer.json", "{}")
    for path in REFERENCES:
        files.write_text(folder / path, name)
    digest = adapter_digest(folder / "adapter")
    return {"adapter-digest": digest, "base-loss": "2.0", "adapter-loss": str(loss), "verdict": verdict, "steps": "7"}


def settings(work: Path, *candidates: dict[str, str]) -> Settings:
    return entrypoint.parse(Settings, ["--work", str(work), "--candidates", json.dumps(candidates)], "promote")


def test_candidate_with_the_lowest_loss_is_promoted(tmp_path: Path) -> None:
    given = settings(
        tmp_path,
        candidate(tmp_path, "1e-2", 1.5),
        candidate(tmp_path, "1e-3", 1.25),
        candidate(tmp_path, "1e-4", 0.5, verdict="fail"),
    )
    result = promote(given)
    digest = adapter_digest(tmp_path / "candidates" / "1e-3" / "adapter")
    assert result == Result("1e-3", digest, base_loss=2.0, adapter_loss=1.25, compared=3)
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
    }
    assert adapter_digest(tmp_path / "adapter") == digest
    assert {(tmp_path / path).read_text() for path in REFERENCES} == {"1e-3"}


def test_no_passing_candidate_fails_without_changes(tmp_path: Path) -> None:
    given = settings(
        tmp_path, candidate(tmp_path, "a", 2.5, verdict="fail"), candidate(tmp_path, "b", 3.0, verdict="fail")
    )
    with pytest.raises(GateFailed, match="none of the 2 candidates passed its evaluation") as caught:
        promote(given)
    assert caught.value.exit_code == 3
    assert {path.name for path in tmp_path.iterdir()} == {"candidates"}


def test_failed_candidate_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "candidates" / "10").mkdir(parents=True)
    assert promote(settings(tmp_path, candidate(tmp_path, "1e-3", 1.0))).candidate == "1e-3"


def test_first_of_equal_losses_is_promoted(tmp_path: Path) -> None:
    given = settings(tmp_path, candidate(tmp_path, "b", 1.0), candidate(tmp_path, "a", 1.0))
    assert promote(given).candidate == "b"


def test_missing_candidate_folder_is_reported(tmp_path: Path) -> None:
    gathered = candidate(tmp_path, "a", 1.0)
    files.write_text(tmp_path / "candidates" / "a" / "adapter" / "adapter_config.json", "another")
    with pytest.raises(BadInput, match=f"adapter {gathered['adapter-digest']} not found in"):
        promote(settings(tmp_path, gathered))
    assert not (tmp_path / "adapter").exists()


def test_invalid_candidates_are_reported(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no candidates"):
        promote(settings(tmp_path))
    with pytest.raises(BadInput) as caught:
        settings(tmp_path, {"adapter-digest": "", "adapter-loss": "nan", "verdict": "pass"})
    for place in ("[0].adapter-digest", "[0].adapter-loss", "[0].base-loss"):
        assert f"--candidates{place}: " in caught.value.message


def test_promoted_adapter_replaces_an_older_one_and_is_reused(tmp_path: Path) -> None:
    files.write_text(tmp_path / "adapter" / "adapter_config.json", "older")
    files.write_text(tmp_path / "adapter" / "left_over.txt", "older")
    given = settings(tmp_path, candidate(tmp_path, "a", 1.0))
    result = promote(given)
    assert not (tmp_path / "adapter" / "left_over.txt").exists()
    assert outputs_intact(given, result)
    files.write_text(tmp_path / "adapter" / "adapter_config.json", "damaged")
    assert not outputs_intact(given, result)


def as_a_pod(tmp_path: Path, *gathered: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = ["--work", str(tmp_path / "work"), "--candidates", json.dumps(gathered)]
    return subprocess.run(
        [sys.executable, "-m", "steps.promote", *words],
        env={"PATH": "", "ARGOTUNE_OUTPUTS": str(tmp_path / "outputs")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_program(tmp_path: Path) -> None:
    gathered = [candidate(tmp_path / "work", "a", 1.5), candidate(tmp_path / "work", "b", 1.25)]
    done = as_a_pod(tmp_path, *gathered)
    assert done.returncode == 0, done.stderr
    assert "promoted: b" in done.stdout
    outputs = {path.name: path.read_text() for path in (tmp_path / "outputs").iterdir()}
    assert outputs["candidate"] == "b"
    assert outputs["adapter-digest"] == gathered[1]["adapter-digest"]
    assert outputs["compared"] == "2"


def test_no_passing_candidate_has_the_exit_code_of_the_gate(tmp_path: Path) -> None:
    done = as_a_pod(tmp_path, candidate(tmp_path / "work", "a", 1.5, verdict="fail"))
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        3,
        "error: none of the 1 candidates passed its evaluation",
    )
    assert not (tmp_path / "outputs").exists()
