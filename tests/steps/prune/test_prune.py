"""The prune step: the trials with the lowest losses continue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steps.models.adapter import adapter_digest
from steps.prune.settings import Result, Settings
from steps.prune.step import prune
from steps.runtime import entrypoint, files
from steps.runtime.errors import BadInput


def trial(work: Path, name: str, loss: float, verdict: str = "pass") -> dict[str, str]:
    """Return the outputs of a trial, whose adapter is in its directory."""
    folder = work / "candidates" / name / "adapter"
    files.write_text(folder / "adapter_config.json", json.dumps({"of": name}))
    files.write_text(folder / "adapter_model.safetensors", name)
    return {
        "adapter-digest": adapter_digest(folder), "base-loss": "2.0", "adapter-loss": str(loss), "verdict": verdict,
    }  # fmt: skip


def settings(work: Path, keep: int, candidates: list[dict[str, str]], names: str = "abc") -> Settings:
    trials = json.dumps([{"candidate": name, "rank": str(ord(name))} for name in names])
    flags = ["--work", str(work), "--keep", str(keep), "--candidates", json.dumps(candidates), "--trials", trials]
    return entrypoint.parse(Settings, flags, "prune")


def test_the_lowest_losses_survive_whatever_their_verdict(tmp_path: Path) -> None:
    given = [trial(tmp_path, "a", 1.9), trial(tmp_path, "b", 1.5, "fail"), trial(tmp_path, "c", 1.7)]
    result = prune(settings(tmp_path, 2, given))
    survivors = [{"candidate": "b", "rank": "98"}, {"candidate": "c", "rank": "99"}]
    assert result == Result(survivors, 3)
    # Argo expands the output into the items of the next rung.
    assert json.loads(entrypoint.as_text(result)["survivors"]) == survivors


def test_a_failed_trial_takes_no_place(tmp_path: Path) -> None:
    result = prune(settings(tmp_path, 2, [trial(tmp_path, "c", 1.7)]))
    assert [survivor["candidate"] for survivor in result.survivors] == ["c"]


def test_no_candidates_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no candidates"):
        prune(settings(tmp_path, 2, []))


def test_an_adapter_without_a_trial_is_an_error(tmp_path: Path) -> None:
    unlisted = trial(tmp_path, "d", 1.0)
    lost = trial(tmp_path, "a", 1.1)
    files.write_text(tmp_path / "candidates" / "a" / "adapter" / "adapter_model.safetensors", "another")
    for outputs in (unlisted, lost):
        with pytest.raises(BadInput, match=f"adapters of no trial in .*: {outputs['adapter-digest']}"):
            prune(settings(tmp_path, 1, [outputs]))
