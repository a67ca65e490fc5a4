"""The report tells a run as it was: whole, failed or refused by the gate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from report_sample import DIGEST, EVALUATION, IMAGE, PLAN, Reader, put, write_check, write_run, written

from steps.report import report_data
from steps.report.report_html import duration, figure


def test_a_whole_run_is_told_from_data_to_endpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path)
    page = Reader(written(tmp_path))
    for words in (
        "bolt-assistant",
        "verdict: pass",
        "its loss on held-out rows is 0.6312, the base model's is 3.901",
        "It is served at http://127.0.0.1:41873/v1",
        "16.2 %",
        "On 40 held-out rows",
        "3 held-out rows are among the training rows too",
        "25 Nm dry, 20 Nm oiled.",
        "About 25 Nm, dry; a fifth less when oiled.",
        "Use an A4-80 stainless bolt",
        "Who wrote Hamlet?",
        "https://data.example.com/faq/train-00000-of-00001.parquet",
        "revision 12fd25f77366fa6b3b4b768ec3050bf629380bac",
        IMAGE,
        DIGEST,
        "9.8 MB, pushed",
        "3 min 32 s",
        "--set tuning.learningRate",
        "lora.deeper",
        "transformers 5",
        "Peak memory 13.7 GiB while training",
    ):
        assert page.says(words), words
    assert not page.says("not made")
    assert not page.says("What failed")
    assert not page.says("could not be read")
    summary = capsys.readouterr().out.splitlines()
    assert "loss        3.901 -> 0.6312 on held-out rows" in summary
    assert f"image       {IMAGE}" in summary
    assert "endpoint    http://127.0.0.1:41873/v1" in summary
    assert "time        4 min 59 s" in summary
    assert f"report      {tmp_path / 'report' / 'report.html'}" in summary
    assert len(summary) <= 10


def test_curves_have_axes_and_words_for_who_cannot_see_them(tmp_path: Path) -> None:
    write_run(tmp_path)
    page = Reader(written(tmp_path))
    charts = [attrs for tag, attrs in page.tags if tag == "svg" and attrs.get("role") == "img"]
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert len(charts) == 5, "loss, learning rate, gradient norm, tokens a second, memory"
    assert all(set(str(chart["aria-labelledby"]).split()) <= ids for chart in charts)
    assert page.says("held-out loss")
    assert page.says("90 points.")
    assert page.says("Reserved goes from 12.5 at step 1 to 13.72 at step 90")


def test_where_the_metrics_went_besides_is_told(tmp_path: Path) -> None:
    write_run(tmp_path)
    put(tmp_path / "checkpoints" / "tracking.json", {"report_to": "mlflow", "run": "3f2a9c01b2d4", "fingerprint": "x"})
    assert Reader(written(tmp_path)).says("Also in MLflow, run 3f2a9c01b2d4.")


def test_a_log_without_memory_has_no_chart_of_it(tmp_path: Path) -> None:
    """A run of before it was logged."""
    lines = [{"step": step, "loss": 3.0 / step, "grad_norm": 1.0} for step in (1, 2, 3)]
    put(tmp_path / "report" / "train.jsonl", "\n".join(map(json.dumps, lines)))
    page = Reader(written(tmp_path))
    assert page.says("Gradient norm goes from 1")
    assert not page.says("Memory") and not page.says("Peak memory")


def test_of_a_single_step_there_are_numbers_and_no_empty_chart(tmp_path: Path) -> None:
    put(
        tmp_path / "report" / "train.jsonl", json.dumps({"step": 1, "loss": 3.25, "grad_norm": 0.5, "memory_gib": 1.5})
    )
    page = Reader(written(tmp_path))
    assert not [tag for tag, _ in page.tags if tag == "svg"]
    assert page.says("Train loss 3.25") and page.says("Gradient norm 0.5") and page.says("Memory, GiB 1.5")


def test_the_page_needs_no_network_and_no_script(tmp_path: Path) -> None:
    write_run(tmp_path)
    page = written(tmp_path)
    tags = Reader(page).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "base", "form", "a"}
    assert not {name for _, attrs in tags for name in attrs} & {"src", "href", "style", "onload", "onclick"}
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in page
    assert len(page.encode()) < 100_000


def test_a_failed_run_says_what_failed_and_what_was_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, until="tune", steps=12)
    failures = [
        {
            "displayName": "evaluate",
            "templateName": "evaluate",
            "phase": "Failed",
            "message": "no space left on report/evaluation.json",
            "finishedAt": "2026-11-24T10:21:07Z",
        }
    ]
    # Argo hands the list over quoted once more where it stands inside a JSON text.
    for given_failures in (json.dumps(failures), json.dumps(json.dumps(failures))):
        page = Reader(written(tmp_path, status="Failed", failures=given_failures))
        assert page.says("What failed")
        assert page.says("no space left on report/evaluation.json")
        assert page.says("The last step that finished is tune.")
        assert page.says("The adapter was not evaluated.")
        assert page.says("Endpoint not made")
    assert "failed      evaluate: no space left" in capsys.readouterr().out


@pytest.mark.parametrize("none", ["", "null", '"null"', "[]", "{{workflow.failures}}"])
def test_without_failures_nothing_is_said_of_them(tmp_path: Path, none: str) -> None:
    page = Reader(written(tmp_path, failures=none))
    assert not page.says("What failed")
    assert not page.says("list of failures")


def test_failures_that_cannot_be_read_are_shown_as_they_came(tmp_path: Path) -> None:
    page = Reader(written(tmp_path, failures=r'"[{\"displayName\": \"tune\", \"message\": \"exit 137\x1b\"}]"'))
    assert page.says("What failed")
    assert page.says("exit 137")


def test_a_verdict_of_fail_is_no_success(tmp_path: Path) -> None:
    write_run(tmp_path, until="evaluate")
    put(tmp_path / "report" / "evaluation.json", {**EVALUATION, "verdict": "fail", "adapter_loss": 4.2})
    page = Reader(written(tmp_path))
    assert page.says("The adapter did not pass the gate")
    assert page.says("It was not packaged or served.")


def test_a_retraining_tells_what_is_new_and_how_good_the_adapter_in_service_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path)
    write_check(tmp_path)
    put(tmp_path / "report" / "evaluation.json", {**EVALUATION, "previous_loss": 0.7})
    page = Reader(written(tmp_path))
    assert page.says("New data, against the adapter in service before this run")
    assert page.says(f"{IMAGE}@{DIGEST}")
    assert page.says("that of the adapter in service 0.7")
    assert page.says("In service")
    assert page.says("2.014")  # its perplexity
    summary = capsys.readouterr().out.splitlines()
    assert "new         data" in summary
    assert "loss        3.901 -> 0.6312 on held-out rows, in service 0.7" in summary


def test_a_turn_without_news_says_why_nothing_was_tuned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, until="download")
    write_check(tmp_path, changed=False, difference="nothing")
    page = Reader(written(tmp_path))
    assert page.says("Data and settings are those of the adapter in service. Nothing was tuned.")
    assert page.says("Nothing, against the adapter in service before this run")
    assert page.says(f"{IMAGE}@{DIGEST}")
    assert "new         nothing" in capsys.readouterr().out.splitlines()


def test_the_first_turn_says_that_nothing_was_in_service(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_check(tmp_path, previous="", difference="no adapter is in service")
    page = Reader(written(tmp_path))
    assert page.says("No adapter was in service before this run.")
    assert not page.says("In service")


def test_how_sure_the_ratio_is(tmp_path: Path) -> None:
    write_run(tmp_path)
    put(
        tmp_path / "report" / "evaluation.json",
        {**EVALUATION, "loss_ratio": {"low": 0.141, "high": 0.188, "level": 0.95}},
    )
    page = Reader(written(tmp_path))
    assert page.says("is 14.1 % to 18.8 % of the base's, with 95 % confidence over the rows")


def test_an_empty_folder_makes_a_report(tmp_path: Path) -> None:
    page = Reader(written(tmp_path, plan="", status="{{workflow.status}}", failures="{{workflow.failures}}"))
    assert page.says("No step finished.")
    assert page.says("unknown")
    assert page.says("The plan was not handed over.")


def test_a_step_logged_again_after_a_resume_counts_once(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 9.9}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 1.0}]
    put(tmp_path / "report" / "train.jsonl", "\n".join(map(json.dumps, lines)))
    assert Reader(written(tmp_path)).says("Loss goes from 3 at step 1 to 1 at step 3; the lowest is 1. 3 points.")


def test_time_counts_parallel_steps_once(tmp_path: Path) -> None:
    for name, started, seconds in (
        ("provision", "10:00:00", 60),
        ("download", "10:00:00", 40),
        ("tune", "11:00:00", 5),
    ):
        moment = f"2026-11-24T{started}+00:00"
        put(tmp_path / "results" / f"{name}.json", {"result": {}, "started": moment, "seconds": seconds})
    facts = report_data.read(tmp_path, plan="", status="", failures="")
    assert facts.busy_seconds == 65


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0 s"), (8.42, "8.42 s"), (252.0, "4 min 12 s"), (7500.0, "2 h 5 min"), (None, "–")],  # noqa: RUF001
)
def test_durations_for_people(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(3.90123, "3.901"), (40.0, "40"), (1234567.0, "1,234,567"), (14200.3, "14,200"), (2e-5, "2e-05")],
)
def test_figures_for_people(value: float, words: str) -> None:
    assert figure(value) == words


def test_weights_of_the_data_are_told(tmp_path: Path) -> None:
    write_run(tmp_path)
    sources = [{"from": "a.parquet", "rows": 60, "weight": 0.5, "train_rows": 1027}, {"from": "b.parquet", "rows": 9}]
    put(tmp_path / "dataset" / "manifest.json", {"sources": sources})
    assert Reader(written(tmp_path)).says("a.parquet (weight 0.5: 1,027 rows), b.parquet")


def test_as_a_program_without_heavy_imports(tmp_path: Path) -> None:
    write_run(tmp_path / "work")
    flags = {"work": str(tmp_path / "work"), "plan": json.dumps(PLAN), "status": "Succeeded", "failures": "null"}
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "steps.report", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "ARGOTUNE_OUTPUTS": str(tmp_path / "outputs")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "steps.report.report_page" in imported
    assert not imported & {"torch", "transformers", "trl", "peft", "datasets", "hera", "workflows"}
    assert Path((tmp_path / "outputs" / "report-path").read_text()).is_file()
