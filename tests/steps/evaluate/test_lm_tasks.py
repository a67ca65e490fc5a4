"""lm-eval run on a small model, with custom tasks over a local file."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trainable_model
import yaml
from tuning import tuned

from steps.evaluate import lm_tasks
from steps.evaluate.settings import Settings
from steps.evaluate.step import evaluate
from steps.runtime.errors import BadInput

ROWS = trainable_model.chat_rows(60)
COLOUR = r"is (\w+)"
"""Regular expression for the colour in an answer."""


def test_a_missing_package_is_reported_before_training(tmp_path: Path) -> None:
    """Run in a process that cannot import lm_eval, even if it is installed."""
    code = (
        "import sys; sys.modules['lm_eval'] = None; import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'lm_eval' else find(name, *rest)\n"
        "from steps.runtime import entrypoint; from steps.tune import settings, step\n"
        "entrypoint.main(settings.Settings, step.tune)"
    )
    flags = ["--work", str(tmp_path), "--model", "nowhere", "--tasks", '["hellaswag"]']
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 2, done.stderr
    assert "the package lm_eval is not installed" in done.stderr
    assert "pip install 'argotune[lm-eval]'" in done.stderr
    assert not lm_tasks.missing_package([])


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks over one local file: multiple choice, and generation."""
    pytest.importorskip("lm_eval")
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"question": row[0]["content"], "answer": row[1]["content"], "wrong": "It is red."} for row in ROWS[40:60]]
    (folder / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "colours.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "metadata": {"version": 1.0},
    }
    mean = {"aggregation": "mean", "higher_is_better": True}
    chosen = {
        "task": "colours_chosen",
        "output_type": "multiple_choice",
        "doc_to_choice": "{{[wrong, answer]}}",
        "doc_to_target": 1,
        "metric_list": [{"metric": "acc", **mean}, {"metric": "acc_norm", **mean}],
        "fewshot_split": "test",
        "num_fewshot": 1,
    }
    generated = {
        "task": "colours_generated",
        "output_type": "generate_until",
        "doc_to_target": "blue",
        "filter_list": [
            {"name": "colour", "filter": [{"function": "regex", "regex_pattern": COLOUR}, {"function": "take_first"}]}
        ],
        "generation_kwargs": {"until": ["<|im_end|>"], "max_gen_toks": 24, "do_sample": False},
        "metric_list": [{"metric": "exact_match", **mean}],
    }
    for task in (chosen, generated):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(data | task))
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainable_model.make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned(tmp_path_factory.mktemp("trained"), tiny, ROWS[50:])


@pytest.fixture
def work(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "work"))


def run(work: Path, model: Path, **flags: Any) -> tuple[Any, dict[str, Any]]:
    values = {"max_length": 128, "max_new_tokens": 24, "samples": 0, "previous": str(work / "adapter"), **flags}
    result = evaluate(Settings(work=work, model=str(model), **values))
    return result, json.loads((work / "report" / "evaluation.json").read_text())


def test_base_adapter_and_deployed_adapter_are_measured(
    work: Path, tiny: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [str(colours / f"colours_{name}.yaml") for name in ("chosen", "generated")]
    rules = {"colours_chosen": 0.9, "colours_chosen/acc_norm": 0.5, "colours_generated": 1.01}
    result, content = run(work, tiny, tasks=tasks, task_limit=12, min_task_scores=rules, better_than_previous=False)
    scores = {score["name"]: score for score in content["tasks"]}
    assert list(scores) == [
        "colours_chosen, acc", "colours_chosen, acc_norm", "colours_generated, exact_match (colour)"
    ]  # fmt: skip
    chosen = scores["colours_chosen, acc"]
    assert (chosen["samples"], chosen["higher_is_better"], chosen["filter"]) == (12, True, "none")
    # The deployed adapter is the same one and gets the same few-shot examples.
    assert chosen["adapter"] == chosen["previous"] == 1.0 > chosen["base"]
    assert chosen["stderr"]["base"] is not None
    outcomes = {outcome["name"]: outcome["ok"] for outcome in content["gate"]}
    assert outcomes == {
        "maxLossRatio": True,
        "minTaskScores.colours_chosen": True,
        "minTaskScores.colours_chosen/acc_norm": True,
        "minTaskScores.colours_generated": False,
    }
    assert result.verdict == "fail" and "minTaskScores.colours_generated is" in result.reason
    assert f"colours_chosen, acc {chosen['base']:.4g} -> 1 (12 samples)" in capsys.readouterr().out


def test_generated_answers_match_those_of_the_evaluation(work: Path, tiny: Path, colours: Path) -> None:
    """Requests use the chat template, as the evaluation does."""
    from steps.evaluate.answers import answer_questions
    from steps.evaluate.evaluated_models import load
    from steps.models.model import load_tokenizer

    _, content = run(work, tiny, tasks=[str(colours / "colours_generated.yaml")])
    [score] = content["tasks"]
    assert score["samples"] == 20
    tokenizer = load_tokenizer(work / "adapter")
    model = load(tiny, work / "adapter", "qlora", {}, "cpu")
    answers = answer_questions(model, tokenizer, [row[:1] for row in ROWS[40:60]], [tokenizer.eos_token_id], 24)
    blue = [match[1] == "blue" for answer in answers if (match := re.search(COLOUR, answer.text))]
    assert (score["filter"], score["adapter"]) == ("colour", pytest.approx(sum(blue) / 20))
    assert sum(blue) >= 10


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"tasks": ["no_such_task"]}, "lm-eval has no task no_such_task"),
        ({"tasks": ["/nowhere/mine.yaml"]}, "lm-eval has no task /nowhere/mine.yaml, and no such file exists"),
        ({"min_task_scores": {"other": 0.5}}, "other: other is not in tasks"),
        ({"min_task_scores": {"colours_chosen/f1": 0.5}}, "colours_chosen/f1: metric must be one of acc, acc_norm"),
    ],
)
def test_invalid_tasks_are_rejected_before_the_model_is_loaded(
    work: Path, colours: Path, flags: dict[str, Any], words: str
) -> None:
    values = {"tasks": [str(colours / "colours_chosen.yaml")], **flags}
    with pytest.raises(BadInput) as caught:
        run(work, work / "no-such-model", **values)
    assert words in caught.value.message


def test_tasks_of_the_harness_are_known(colours: Path) -> None:
    lm_tasks.check(["hellaswag", "ifeval", "mmlu"])
