"""Tasks of lm-eval, asked for real of a small model, by a task of our own over a local file."""

from __future__ import annotations

import json
import os
import re
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
SAID = r"is (\w+)"
"""Finds the colour in an answer."""


def test_without_the_package_it_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    """In a process that can't import it, whether it is installed or not."""
    code = (
        "import sys; sys.modules['lm_eval'] = None; import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'lm_eval' else find(name, *rest)\n"
        "from steps.runtime import entrypoint; from steps.tune.step import tune; from steps.tune.settings import Settings; entrypoint.main(Settings, tune)"
    )
    flags = ["--work", str(tmp_path), "--model", "nowhere", "--tasks", '["hellaswag"]']
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 2, done.stderr
    assert "the package lm_eval is not installed" in done.stderr
    assert "pip install 'argotune[lm-eval]'" in done.stderr
    assert not lm_tasks.faults([])


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks over one local file: which answer is likelier, and what is answered."""
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
    said = {
        "task": "colours_said",
        "output_type": "generate_until",
        "doc_to_target": "blue",
        "filter_list": [
            {"name": "colour", "filter": [{"function": "regex", "regex_pattern": SAID}, {"function": "take_first"}]}
        ],
        "generation_kwargs": {"until": ["<|im_end|>"], "max_gen_toks": 24, "do_sample": False},
        "metric_list": [{"metric": "exact_match", **mean}],
    }
    for task in (chosen, said):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(data | task))
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainable_model.make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def work(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned(tmp_path_factory.mktemp("work"), tiny, ROWS[50:])


def run(work: Path, model: Path, **flags: Any) -> tuple[Any, dict[str, Any]]:
    given = {"max_length": 128, "max_new_tokens": 24, "samples": 0, "previous": str(work / "adapter"), **flags}
    result = evaluate(Settings(work=work, model=str(model), **given))
    return result, json.loads((work / "report" / "evaluation.json").read_text())


def test_base_adapter_and_the_one_in_service_are_asked(
    work: Path, tiny: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [str(colours / f"colours_{name}.yaml") for name in ("chosen", "said")]
    rules = {"colours_chosen": 0.9, "colours_chosen/acc_norm": 0.5, "colours_said": 1.01}
    result, told = run(work, tiny, tasks=tasks, task_limit=12, min_task_scores=rules, better_than_previous=False)
    scores = {score["name"]: score for score in told["tasks"]}
    assert list(scores) == ["colours_chosen, acc", "colours_chosen, acc_norm", "colours_said, exact_match (colour)"]
    chosen = scores["colours_chosen, acc"]
    assert (chosen["samples"], chosen["higher_is_better"], chosen["filter"]) == (12, True, "none")
    # What was tuned is the likelier answer; the adapter in service is the same one, and sees the same examples.
    assert chosen["adapter"] == chosen["previous"] == 1.0 > chosen["base"]
    assert chosen["stderr"]["base"] is not None
    outcomes = {outcome["name"]: outcome["ok"] for outcome in told["gate"]}
    assert outcomes == {
        "maxLossRatio": True,
        "minTaskScores.colours_chosen": True,
        "minTaskScores.colours_chosen/acc_norm": True,
        "minTaskScores.colours_said": False,
    }
    assert result.verdict == "fail" and "minTaskScores.colours_said is" in result.reason
    assert f"colours_chosen, acc {chosen['base']:.4g} -> 1 (12 samples)" in capsys.readouterr().out


def test_what_a_model_says_is_judged_as_its_own_answers_are(work: Path, tiny: Path, colours: Path) -> None:
    """The task asks in the chat template, as the evaluation does: its exact matches are those of plain answering."""
    from steps.evaluate.answers import answer
    from steps.evaluate.evaluated_models import load
    from steps.models.model import load_tokenizer

    _, told = run(work, tiny, tasks=[str(colours / "colours_said.yaml")])
    [said] = told["tasks"]
    assert said["samples"] == 20
    tokenizer = load_tokenizer(work / "adapter")
    model = load(tiny, work / "adapter", "qlora", {}, "cpu")
    answers = answer(model, tokenizer, [row[:1] for row in ROWS[40:60]], [tokenizer.eos_token_id], 24)
    blue = [found[1] == "blue" for one in answers if (found := re.search(SAID, one))]
    assert (said["filter"], said["adapter"]) == ("colour", pytest.approx(sum(blue) / 20))
    assert sum(blue) >= 10


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"tasks": ["no_such_task"]}, "lm-eval has no task no_such_task"),
        ({"tasks": ["/nowhere/mine.yaml"]}, "lm-eval has no task /nowhere/mine.yaml, and there is no such file"),
        ({"min_task_scores": {"other": 0.5}}, "other: other is not among the tasks"),
        ({"min_task_scores": {"colours_chosen/f1": 0.5}}, "colours_chosen/f1: colours_chosen measures acc, acc_norm"),
    ],
)
def test_what_cannot_be_asked_is_told_before_the_model_is_loaded(
    work: Path, colours: Path, flags: dict[str, Any], words: str
) -> None:
    given = {"tasks": [str(colours / "colours_chosen.yaml")], **flags}
    with pytest.raises(BadInput) as refused:
        run(work, work / "no-model-here", **given)
    assert words in refused.value.message


def test_the_harness_knows_its_own_tasks(colours: Path) -> None:
    lm_tasks.check(["hellaswag", "ifeval", "mmlu"])
