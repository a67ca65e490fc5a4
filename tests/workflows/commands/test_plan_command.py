"""``argotune plan`` on a terminal."""

from __future__ import annotations

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
    short, full = printed(), printed("--all")
    hidden = rows(full).keys() - rows(short).keys()
    assert {path: rows(full)[path] for path in hidden} == {
        path: (value, origin)
        for path, (value, origin) in rows(full).items()
        if origin == "built-in" and value in ("", "{}", "[]", "0", "0.0", "false")
    }
    assert f"\n{len(hidden)} built-in values that are empty, 0 or false are not shown: --all\n" in short
    assert "not shown" not in full
    assert "rollout.canary" in hidden
    assert rows(short)["tuning.epochs"] == ("3", "built-in")


def test_a_value_that_the_user_switched_off_is_shown(printed) -> None:
    assert rows(printed("--set", "rollout.hotLoad=false"))["rollout.hotLoad"] == ("false", "flag")


def test_hours_that_were_not_measured(printed) -> None:
    assert "hours on this machine: not measured (argotune tune-bench FILE, with the same flags)" in printed()


def rows(text: str) -> dict[str, tuple[str, str]]:
    """Return value and origin by path, from the first table, whose columns begin where its header's do."""
    header, *lines = text.partition("\n\n")[0].splitlines()
    value, origin = header.index("IS "), header.index("FROM")
    table = [line for line in lines if "are not shown" not in line]
    return {line[:value].strip(): (line[value:origin].strip(), line[origin:].strip()) for line in table}
