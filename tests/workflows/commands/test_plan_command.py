"""``argotune plan`` on a terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workflows import cli

EXAMPLE = Path(__file__).parents[3] / "examples" / "smollm2_135m_qlora_parquet.yaml"


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ARGOTUNE_HOME", str(tmp_path))

    def plan(*arguments: str) -> str:
        assert cli.main(["plan", str(EXAMPLE), *arguments]) == 0
        return capsys.readouterr().out

    return plan


def test_built_in_values_without_effect_are_counted(printed) -> None:
    short, full = (printed(*flags).splitlines() for flags in ([], ["--all"]))
    hidden = [line for line in full if line not in short]
    assert all(re.search(r" (|\{\}|\[\]|0|0\.0|false) +built-in$", line) for line in hidden), hidden
    assert f"{len(hidden)} built-in values that are empty, 0 or false are not shown: --all" in short
    assert any(line.startswith("rollout.canary ") for line in hidden)
    assert any(line.startswith("tuning.epochs ") and line.endswith("built-in") for line in short)


def test_a_value_that_the_user_switched_off_is_shown(printed) -> None:
    assert re.search(
        r"^rollout\.hotLoad +false +(?!built-in)", printed("--set", "rollout.hotLoad=false"), re.MULTILINE
    )


def test_hours_that_were_not_measured(printed) -> None:
    assert f"hours on this machine: not measured, argotune tune-bench {EXAMPLE} does" in printed()
