"""Comparison of adapter and base model on held-out rows."""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import trainable_model
from registry_fixture import Registry
from tuning import tuned

from steps.evaluate.settings import Result as EvaluateResult
from steps.evaluate.settings import Settings as EvaluateSettings
from steps.evaluate.step import evaluate, outputs_intact
from steps.models import token_distributions
from steps.package import step as package
from steps.runtime import machine
from steps.runtime.errors import BadInput
from steps.tune.settings import Settings as TuneSettings
from steps.tune.step import tune

EVAL = trainable_model.chat_rows(60)[50:]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainable_model.make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def evaluated(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with adapter, held-out rows and the report of an evaluation; tests only read it."""
    work = tuned(tmp_path_factory.mktemp("evaluated"), tiny, EVAL)
    (work / "result.json").write_text(json.dumps(dataclasses.asdict(run(work, tiny))))
    return work


@pytest.fixture
def result(evaluated: Path) -> EvaluateResult:
    return EvaluateResult(**json.loads((evaluated / "result.json").read_text()))


@pytest.fixture
def work(evaluated: Path, tmp_path: Path) -> Path:
    """A copy of ``evaluated`` for one test."""
    return Path(shutil.copytree(evaluated, tmp_path / "work"))


def run(work: Path, model: Path, **flags: Any) -> EvaluateResult:
    return evaluate(settings(work, model, **flags))


def settings(work: Path, model: Path, **flags: Any) -> EvaluateSettings:
    return EvaluateSettings(work=work, model=str(model), **{"max_length": 128, "max_new_tokens": 24, **flags})


def report(work: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((work / "report" / "evaluation.json").read_text())
    return content


def test_losses_match_the_model_row_by_row(work: Path, tiny: Path, result: EvaluateResult) -> None:
    """Compare with transformers' loss of single rows and labels built by hand: padding must not count."""
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer

    from steps.models.model import load_base

    tokenizer = AutoTokenizer.from_pretrained(work / "adapter")
    model = PeftModel.from_pretrained(load_base(tiny, "lora", {}, "cpu"), work / "adapter").eval()
    total, tokens = {"base": 0.0, "adapter": 0.0}, 0
    for row, measured in zip(EVAL, report(work)["row_losses"], strict=True):
        prompt = tokenizer.apply_chat_template(row[:1], add_generation_prompt=True, return_dict=True)["input_ids"]
        ids = tokenizer.apply_chat_template(row, return_dict=True)["input_ids"]
        labels = [-100] * len(prompt) + ids[len(prompt) : -1] + [-100]  # the newline after the end token is ignored
        with torch.no_grad():
            inputs = {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])}
            tuned = model(**inputs).loss.item()
            with model.disable_adapter():
                plain = model(**inputs).loss.item()
        assert measured["base_loss"] == pytest.approx(plain, abs=2e-3)
        assert measured["adapter_loss"] == pytest.approx(tuned, abs=2e-3)
        count = sum(label != -100 for label in labels)
        assert measured["tokens"] == count
        total = {"base": total["base"] + plain * count, "adapter": total["adapter"] + tuned * count}
        tokens += count
    assert result.base_loss == pytest.approx(total["base"] / tokens, abs=2e-3)
    assert result.adapter_loss == pytest.approx(total["adapter"] / tokens, abs=2e-3)


def test_the_base_is_quantized_only_if_memory_is_short(
    work: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = run(work, tiny, samples=0)
    assert "quantized" not in capsys.readouterr().out
    monkeypatch.setattr(machine, "free_memory", lambda: 0)
    trained = run(work, tiny, samples=0)
    out = capsys.readouterr().out
    assert "evaluating the base quantized, as in training: unquantized it needs" in out
    assert "Linear4bit layers" in out
    assert trained.base_loss != served.base_loss


def test_the_verdict(result: EvaluateResult, work: Path, tiny: Path) -> None:
    assert result.adapter_loss < 0.5 * result.base_loss
    assert result.verdict == "pass"
    assert result.base_perplexity == pytest.approx(math.exp(result.base_loss), rel=1e-3)
    ratio = report(work)["loss_ratio"]
    assert 0 < ratio["low"] < result.adapter_loss / result.base_loss < ratio["high"] < 1
    strict = run(work, tiny, max_loss_ratio=0.5 * result.adapter_loss / result.base_loss, samples=0)
    assert strict.verdict == "fail"
    assert report(work)["samples"] == []
    assert strict.reason.startswith("maxLossRatio is 0.")
    assert (strict.adapter_rouge_l, strict.adapter_exact_match) == (None, None)
    lenient = run(work, tiny, max_loss_ratio=1.1 * result.adapter_loss / result.base_loss)
    assert lenient == result


def test_every_failed_rule_is_reported(
    work: Path, tiny: Path, result: EvaluateResult, capsys: pytest.CaptureFixture[str]
) -> None:
    """The limit is between the ratio and the upper bound of its interval; no answer equals the row's."""
    limit = (result.adapter_loss / result.base_loss + report(work)["loss_ratio"]["high"]) / 2
    failed = run(
        work, tiny, max_loss_ratio=limit, confident=True, min_exact_match=1.0, min_rouge_l=0.1, max_regressions=0.0
    )
    outcomes = {outcome["name"]: outcome for outcome in report(work)["gate"]}
    assert {name: outcome["ok"] for name, outcome in outcomes.items()} == {
        "maxLossRatio": True, "confident": False, "minExactMatch": False, "minRougeL": True, "maxRegressions": True
    }  # fmt: skip
    assert outcomes["minRougeL"]["measured"] == failed.adapter_rouge_l
    assert outcomes["minExactMatch"]["wanted"] == ">= 1"
    assert failed.verdict == "fail"
    assert "confident is" in failed.reason and "minExactMatch is" in failed.reason
    assert "minRougeL" not in failed.reason
    out = capsys.readouterr().out
    assert f"gate: confident is {outcomes['confident']['measured']:.4g}, required < {limit:g}: failed" in out
    assert "gate: maxRegressions is 0, required <= 0: passed" in out


def test_a_rule_about_answers_needs_answers(work: Path, tiny: Path) -> None:
    with pytest.raises(BadInput, match="min_rouge_l cannot be measured: samples is 0"):
        run(work, tiny, samples=0, min_rouge_l=0.5)


@pytest.mark.parametrize("count", [4, 9])
def test_answers_side_by_side(work: Path, tiny: Path, count: int) -> None:
    """Answers are the same whether questions are answered one by one or in a left-padded batch."""
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer

    from steps.models.model import load_base

    run(work, tiny, samples=count)
    samples = report(work)["samples"]
    assert len(samples) == count
    assert len({sample["question"] for sample in samples}) == count
    tokenizer = AutoTokenizer.from_pretrained(work / "adapter")
    model = PeftModel.from_pretrained(load_base(tiny, "lora", {}, "cpu"), work / "adapter").eval()
    for sample in samples:
        assert [{"role": "user", "content": sample["question"]}] == sample["messages"]
        assert sample["reference"].endswith("is blue, as all numbers are.")
        inputs = tokenizer.apply_chat_template(
            sample["messages"], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        with torch.no_grad():
            tokens = model.generate(**inputs, max_new_tokens=24, do_sample=False)
        alone = tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        assert sample["adapter_answer"] == alone
        assert sample["adapter_answer"] != sample["base_answer"]
        assert sample["scores"]["adapter"]["rouge_l"] > sample["scores"]["base"]["rouge_l"]
    content = report(work)
    scores = [sample["scores"]["adapter"]["rouge_l"] for sample in samples]
    mean = content["scores"]["adapter"]["rouge_l"]
    assert mean == content["adapter_rouge_l"] == pytest.approx(sum(scores) / count, abs=1e-4)


def test_probabilities_of_the_first_tokens(work: Path, tiny: Path) -> None:
    """Base and adapter score the tokens that the adapter chooses; only the shortest questions have them."""
    run(work, tiny, samples=7)
    content = report(work)
    assert content["quantized"] is False
    stored = [sample for sample in content["samples"] if "first_tokens" in sample]
    assert len(stored) == 5
    longest = max(len(sample["question"]) for sample in stored)
    assert all(len(one["question"]) >= longest for one in content["samples"] if one not in stored)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work / "adapter")
    for sample in stored:
        base, adapter = (token_distributions.from_json(sample["first_tokens"][name]) for name in ("base", "adapter"))
        assert [one.token for one in base] == [one.token for one in adapter]
        assert 0 < len(base) <= 8
        text = tokenizer.decode([one.token for one in base], skip_special_tokens=True).strip()
        assert sample["adapter_answer"].startswith(text)
        assert all(max(one.logprobs, key=lambda token: one.logprobs[token]) == one.token for one in adapter)
        distances = [
            token_distributions.distance(one.logprobs, other.logprobs)
            for one, other in zip(base, adapter, strict=True)
        ]
        assert max(distances) > 0.3


def test_samples_follow_the_seed(work: Path, tiny: Path) -> None:
    chosen = []
    for seed in (1, 1, 2):
        run(work, tiny, samples=3, seed=seed, max_new_tokens=1)
        chosen.append([sample["question"] for sample in report(work)["samples"]])
    assert chosen[0] == chosen[1] != chosen[2]


def test_rows_on_which_the_adapter_is_worse(work: Path, tiny: Path) -> None:
    odd = [[EVAL[0][0], {"role": "assistant", "content": "zq xw vj " * 3}]]
    trainable_model.write_rows(work / "dataset" / "eval.parquet", [*odd, *EVAL[:3]])
    run(work, tiny, samples=0)
    content = report(work)
    worse = [row for row in content["row_losses"] if row["adapter_loss"] > row["base_loss"]]
    assert [row["row"] for row in content["regressions"]] == [row["row"] for row in worse]
    assert run(work, tiny, samples=0, max_regressions=len(worse) / 4).verdict == "pass"
    assert run(work, tiny, samples=0, max_regressions=len(worse) / 4 - 0.01).reason.startswith("maxRegressions is ")
    assert content["regressions"][0]["row"] == 0


def test_outputs_are_intact_while_the_adapter_is_the_same(work: Path, tiny: Path, result: EvaluateResult) -> None:
    from steps.models.adapter import adapter_digest

    digest = adapter_digest(work / "adapter")
    assert outputs_intact(settings(work, tiny, adapter_digest=digest), result)
    assert not outputs_intact(settings(work, tiny, adapter_digest="sha256:other"), result)
    assert not outputs_intact(settings(work, tiny), result)


def test_no_held_out_rows(work: Path, tiny: Path) -> None:
    (work / "dataset" / "eval.parquet").unlink()
    with pytest.raises(BadInput, match=r"eval\.parquet"):
        run(work, tiny)


def test_an_adapter_with_another_digest(work: Path, tiny: Path) -> None:
    with pytest.raises(BadInput, match="digest differs"):
        run(work, tiny, adapter_digest="sha256:other")


def test_no_adapter(work: Path, tiny: Path) -> None:
    (work / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"adapter_model\.safetensors"):
        run(work, tiny)


def test_an_adapter_of_another_shape_than_the_base(work: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = trainable_model.make_model(tmp_path / "wide")
    config = LlamaConfig.from_pretrained(folder)
    config.hidden_size, config.intermediate_size = 128, 256
    LlamaForCausalLM(config).save_pretrained(folder)
    with pytest.raises(BadInput, match="fit the base"):
        run(work, folder)


@pytest.fixture(scope="module")
def others(evaluated: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Deployed adapters: one that has learned less than the evaluated adapter, and the same one."""
    folder = tmp_path_factory.mktemp("deployed")
    trainable_model.write_rows(folder / "dataset" / "train.parquet", trainable_model.chat_rows(8))
    tune(TuneSettings(work=folder, model=str(tiny), rank=4, learning_rate=1e-3, max_steps=2, max_length=128))
    return {"worse": folder / "adapter", "equal": evaluated / "adapter"}


@pytest.mark.parametrize(("kind", "verdict"), [("worse", "pass"), ("equal", "fail")])
def test_the_deployed_adapter_must_be_beaten(
    work: Path, tiny: Path, result: EvaluateResult, others: dict[str, Path], kind: str, verdict: str
) -> None:
    compared = run(work, tiny, previous=str(others[kind]))
    assert compared.verdict == verdict
    assert compared.reason == ("" if kind == "worse" else "betterThanPrevious is 1, required < 1")
    assert_compares_three(report(work), kind)
    assert (compared.base_loss, compared.adapter_loss) == (result.base_loss, result.adapter_loss)
    assert compared.previous_loss is not None
    assert report(work)["previous_loss"] == compared.previous_loss
    if kind == "equal":
        assert compared.previous_loss == compared.adapter_loss
    else:
        assert compared.adapter_loss < compared.previous_loss <= 1.1 * compared.base_loss


def assert_compares_three(content: dict[str, Any], kind: str) -> None:
    """Check losses and answers of all three models, row by row; those of an equal adapter are equal."""
    names = ("base", "adapter", "previous")
    for row in content["row_losses"]:
        assert all(row[f"{name}_loss"] > 0 for name in names)
    for sample in content["samples"]:
        assert set(sample["scores"]) == set(names)
    pairs = [(row["adapter_loss"], row["previous_loss"]) for row in content["row_losses"]]
    pairs += [(sample["adapter_answer"], sample["previous_answer"]) for sample in content["samples"]]
    if kind == "equal":
        assert all(adapter == previous for adapter, previous in pairs)
    else:
        assert all(adapter != previous for adapter, previous in pairs)
        assert content["scores"]["previous"]["rouge_l"] < content["scores"]["adapter"]["rouge_l"]
    assert content["regressions_against_previous"] == []


def test_better_than_previous_can_be_switched_off(work: Path, tiny: Path, others: dict[str, Path]) -> None:
    compared = run(work, tiny, previous=str(others["equal"]), better_than_previous=False, samples=0)
    assert (compared.verdict, compared.previous_loss) == ("pass", compared.adapter_loss)


def test_previous_loss_is_none_without_a_deployed_adapter(work: Path, tiny: Path) -> None:
    assert run(work, tiny).previous_loss is None


def test_an_adapter_of_another_base_is_not_compared(
    work: Path, tiny: Path, others: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(others["equal"], tmp_path / "other"))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "team/other"}))
    compared = run(work, tiny, previous=str(folder))
    assert (compared.verdict, compared.previous_loss) == ("pass", None)
    assert "not comparing with the deployed adapter: its base is team/other" in capsys.readouterr().out


def test_a_broken_deployed_adapter_is_rejected(work: Path, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not an adapter"):
        run(work, tiny, previous=str(tmp_path))


def test_the_deployed_adapter_can_be_an_image(
    work: Path, tiny: Path, others: dict[str, Path], open_registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "adapter").symlink_to(others["worse"])
    pushed = package.package(package.Settings(work=tmp_path, image=f"{open_registry.address}/team/service:1"))
    compared = run(work, tiny, previous=pushed.image_reference)
    assert compared.previous_loss == run(work, tiny, previous=str(others["worse"])).previous_loss


@pytest.mark.parametrize(
    "arguments",
    [{"assistant_only_loss": False}, {"completion_only_loss": True}, {"truncation_mode": "keep_end"}],
    ids=lambda arguments: next(iter(arguments)),
)
def test_the_tokens_that_training_learns_are_measured(tiny: Path, tmp_path: Path, arguments: dict[str, Any]) -> None:
    talks = [first + second for first, second in zip(EVAL, reversed(EVAL), strict=True)]
    for name in ("train", "eval"):
        trainable_model.write_rows(tmp_path / "dataset" / f"{name}.parquet", talks)
    shared = {"max_length": 57, "training_arguments": arguments}
    tune(TuneSettings(work=tmp_path, model=str(tiny), rank=4, max_steps=1, **shared))
    run(tmp_path, tiny, samples=0, **shared)
    tokens = {name: (tmp_path / "tokens" / name / "tokens.arrow").read_bytes() for name in ("train", "eval")}
    assert tokens["train"] == tokens["eval"]
    run(tmp_path, tiny, samples=0, max_length=57)
    assert (tmp_path / "tokens" / "eval" / "tokens.arrow").read_bytes() != tokens["train"], "the default differs"
