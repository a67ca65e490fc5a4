"""Checks that could not run are not reported as passed."""

from pathlib import Path

from steps.preflight.settings import Settings
from steps.preflight.step import preflight
from steps.runtime.outcomes import NotChecked, format_line, summarize


def test_a_skipped_check_is_not_ok():
    skipped = NotChecked("the quota", "forbidden")
    assert skipped == "the quota was not checked: forbidden"
    assert format_line(skipped) == "not checked: the quota (forbidden)"
    assert format_line("a.parquet is readable") == "ok: a.parquet is readable"


def test_the_summary_names_what_was_not_checked():
    assert summarize(["a", "b"]) == "all checks passed (2)"
    assert summarize(["a", NotChecked("the cluster", "no")]) == "1 checks passed; not checked: the cluster"


def test_an_offline_hub_is_not_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = preflight(Settings(work=Path(tmp_path), model="org/model", revision="main"))
    assert "not checked: base model org/model" in capsys.readouterr().out
    assert result.summary.startswith("0 checks passed; not checked: base model org/model")
