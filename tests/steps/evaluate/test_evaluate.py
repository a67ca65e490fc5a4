"""The comparison of adapter and base on held-out rows."""

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
def work(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with an adapter."""
    return tuned(tmp_path_factory.mktemp("work"), tiny, EVAL)


@pytest.fixture(scope="module")
def result(work: Path, tiny: Path) -> EvaluateResult:
    return run(work, tiny)


def run(work: Path, model: Path, **flags: Any) -> EvaluateResult:
    return evaluate(settings(work, model, **flags))


def settings(work: Path, model: Path, **flags: Any) -> EvaluateSettings:
    return EvaluateSettings(work=work, model=str(model), **{"max_length": 128, "max_new_tokens": 24, **flags})


def report(work: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((work / "report" / "evaluation.json").read_text())
    return told


def test_losses_are_those_of_the_model_row_by_row(work: Path, tiny: Path, result: EvaluateResult) -> None:
    """Against transformers' own loss, one row at a time, labels made by hand: the padding must not count."""
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer

    from steps.models.model import compute_dtype, load_base

    near = 2e-3 if compute_dtype("cpu") == "float32" else 6e-2  # bfloat16 rounds at each batch size in another way
    tokenizer = AutoTokenizer.from_pretrained(work / "adapter")
    model = PeftModel.from_pretrained(load_base(tiny, "lora", {}, "cpu"), work / "adapter").eval()
    told = report(work)
    total, tokens = {"base": 0.0, "adapter": 0.0}, 0
    for row, measured in zip(EVAL, told["row_losses"], strict=True):
        prompt = tokenizer.apply_chat_template(row[:1], add_generation_prompt=True, return_dict=True)["input_ids"]
        ids = tokenizer.apply_chat_template(row, return_dict=True)["input_ids"]
        labels = [-100] * len(prompt) + ids[len(prompt) : -1] + [-100]  # the newline after the end counts not
        with torch.no_grad():
            inputs = {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])}
            tuned = model(**inputs).loss.item()
            with model.disable_adapter():
                plain = model(**inputs).loss.item()
        assert measured["base_loss"] == pytest.approx(plain, abs=near)
        assert measured["adapter_loss"] == pytest.approx(tuned, abs=near)
        count = sum(label != -100 for label in labels)
        assert measured["tokens"] == count
        total = {"base": total["base"] + plain * count, "adapter": total["adapter"] + tuned * count}
        tokens += count
    assert result.base_loss == pytest.approx(total["base"] / tokens, abs=near)
    assert result.adapter_loss == pytest.approx(total["adapter"] / tokens, abs=near)


def test_the_base_is_as_served_and_only_without_memory_as_trained(
    work: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = run(work, tiny, samples=0)
    assert "quantized" not in capsys.readouterr().out
    monkeypatch.setattr(machine, "free_memory", lambda: 0)
    trained = run(work, tiny, samples=0)
    out = capsys.readouterr().out
    assert "the base is evaluated quantized, as in training: as it is served it takes" in out
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
    just = run(work, tiny, max_loss_ratio=1.1 * result.adapter_loss / result.base_loss)
    assert just == result


def test_every_rule_that_says_no_is_told(
    work: Path, tiny: Path, result: EvaluateResult, capsys: pytest.CaptureFixture[str]
) -> None:
    """The point is below the limit and the upper end of its interval is above; no answer is the row's own."""
    told = report(work)
    limit = (result.adapter_loss / result.base_loss + told["loss_ratio"]["high"]) / 2
    refused = run(
        work, tiny, max_loss_ratio=limit, confident=True, min_exact_match=1.0, min_rouge_l=0.1, max_regressions=0.0
    )
    outcomes = {outcome["name"]: outcome for outcome in report(work)["gate"]}
    assert {name: outcome["ok"] for name, outcome in outcomes.items()} == {
        "maxLossRatio": True, "confident": False, "minExactMatch": False, "minRougeL": True, "maxRegressions": True
    }  # fmt: skip
    assert outcomes["minRougeL"]["measured"] == refused.adapter_rouge_l
    assert outcomes["minExactMatch"]["wanted"] == ">= 1"
    assert refused.verdict == "fail"
    assert "confident is" in refused.reason and "minExactMatch is" in refused.reason
    assert "minRougeL" not in refused.reason
    said = capsys.readouterr().out
    assert f"gate: confident is {outcomes['confident']['measured']:.4g}, wanted < {limit:g}: no" in said
    assert "gate: maxRegressions is 0, wanted <= 0: ok" in said


def test_a_rule_about_answers_needs_answers(work: Path, tiny: Path) -> None:
    with pytest.raises(BadInput, match="min_rouge_l can't be measured: samples is 0"):
        run(work, tiny, samples=0, min_rouge_l=0.5)


@pytest.mark.parametrize("count", [4, 9])
def test_answers_side_by_side(work: Path, tiny: Path, count: int) -> None:
    """Few questions are answered alone; in a batch, padded on the left, the answers are the same."""
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
    told = report(work)
    scores = [sample["scores"]["adapter"]["rouge_l"] for sample in samples]
    assert (
        told["scores"]["adapter"]["rouge_l"] == told["adapter_rouge_l"] == pytest.approx(sum(scores) / count, abs=1e-4)
    )


def test_samples_follow_the_seed(work: Path, tiny: Path) -> None:
    chosen = []
    for seed in (1, 1, 2):
        run(work, tiny, samples=3, seed=seed, max_new_tokens=1)
        chosen.append([sample["question"] for sample in report(work)["samples"]])
    assert chosen[0] == chosen[1] != chosen[2]


def test_rows_on_which_the_adapter_is_worse(work: Path, tiny: Path, tmp_path: Path) -> None:
    """What it was taught never to say."""
    odd = [[EVAL[0][0], {"role": "assistant", "content": "zq xw vj " * 3}]]
    other = copy_of(work, tmp_path, rows=[*odd, *EVAL[:3]])
    run(other, tiny, samples=0)
    told = report(other)
    worse = [row for row in told["row_losses"] if row["adapter_loss"] > row["base_loss"]]
    assert [row["row"] for row in told["regressions"]] == [row["row"] for row in worse]
    assert run(other, tiny, samples=0, max_regressions=len(worse) / 4).verdict == "pass"
    assert run(other, tiny, samples=0, max_regressions=len(worse) / 4 - 0.01).reason.startswith("maxRegressions is ")
    assert told["regressions"][0]["row"] == 0


def test_finished_work_is_kept_while_the_adapter_is_the_same(work: Path, tiny: Path, result: EvaluateResult) -> None:
    from steps.models.adapter import adapter_digest

    digest = adapter_digest(work / "adapter")
    assert outputs_intact(settings(work, tiny, adapter_digest=digest), result)
    assert not outputs_intact(settings(work, tiny, adapter_digest="sha256:other"), result)
    assert not outputs_intact(settings(work, tiny), result)


def copy_of(work: Path, folder: Path, rows: list[Any] | None = None) -> Path:
    import shutil

    shutil.copytree(work, folder / "copy")
    if rows is not None:
        trainable_model.write_rows(folder / "copy" / "dataset" / "eval.parquet", rows)
    return folder / "copy"


def test_no_held_out_rows(work: Path, tiny: Path, tmp_path: Path) -> None:
    other = copy_of(work, tmp_path)
    (other / "dataset" / "eval.parquet").unlink()
    with pytest.raises(BadInput, match=r"eval\.parquet"):
        run(other, tiny)


def test_another_adapter_than_the_tuned_one(work: Path, tiny: Path) -> None:
    with pytest.raises(BadInput, match="digest differs"):
        run(work, tiny, adapter_digest="sha256:other")


def test_no_adapter(work: Path, tiny: Path, tmp_path: Path) -> None:
    other = copy_of(work, tmp_path)
    (other / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"adapter_model\.safetensors"):
        run(other, tiny)


def test_a_base_that_the_adapter_doesnt_fit(work: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = trainable_model.make_model(tmp_path / "wide")
    config = LlamaConfig.from_pretrained(folder)
    config.hidden_size, config.intermediate_size = 128, 256
    LlamaForCausalLM(config).save_pretrained(folder)
    with pytest.raises(BadInput, match="fit the base"):
        run(work, folder)


@pytest.fixture(scope="module")
def others(work: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters that may be in service: one that learned less than that of ``work``, and one that learned as much."""
    folder = tmp_path_factory.mktemp("in-service")
    trainable_model.write_rows(folder / "dataset" / "train.parquet", trainable_model.chat_rows(8))
    tune(TuneSettings(work=folder, model=str(tiny), rank=4, learning_rate=1e-3, max_steps=2, max_length=128))
    return {"worse": folder / "adapter", "equal": work / "adapter"}


@pytest.mark.parametrize(("kind", "verdict"), [("worse", "pass"), ("equal", "fail")])
def test_the_adapter_in_service_must_be_beaten(
    work: Path, tiny: Path, result: EvaluateResult, others: dict[str, Path], kind: str, verdict: str
) -> None:
    told = run(work, tiny, previous=str(others[kind]))
    assert told.verdict == verdict
    assert told.reason == ("" if kind == "worse" else "betterThanPrevious is 1, wanted < 1")
    side_by_side(report(work), kind)
    assert (told.base_loss, told.adapter_loss) == (result.base_loss, result.adapter_loss)
    assert told.previous_loss is not None
    assert report(work)["previous_loss"] == told.previous_loss
    if kind == "equal":
        assert told.previous_loss == told.adapter_loss
    else:
        assert told.adapter_loss < told.previous_loss <= 1.1 * told.base_loss


def side_by_side(told: dict[str, Any], kind: str) -> None:
    """Losses and answers of all three, row by row; an equal adapter gives equal ones."""
    names = ("base", "adapter", "previous")
    for row in told["row_losses"]:
        assert all(row[f"{name}_loss"] > 0 for name in names)
    for sample in told["samples"]:
        assert set(sample["scores"]) == set(names)
    pairs = [(row["adapter_loss"], row["previous_loss"]) for row in told["row_losses"]]
    pairs += [(sample["adapter_answer"], sample["previous_answer"]) for sample in told["samples"]]
    if kind == "equal":
        assert all(one == other for one, other in pairs)
    else:
        assert all(one != other for one, other in pairs)
        assert told["scores"]["previous"]["rouge_l"] < told["scores"]["adapter"]["rouge_l"]
    assert told["regressions_against_previous"] == []


def test_an_adapter_may_be_asked_to_beat_its_base_alone(work: Path, tiny: Path, others: dict[str, Path]) -> None:
    told = run(work, tiny, previous=str(others["equal"]), better_than_previous=False, samples=0)
    assert (told.verdict, told.previous_loss) == ("pass", told.adapter_loss)


def test_without_an_adapter_in_service_there_is_no_loss_of_it(work: Path, tiny: Path) -> None:
    assert run(work, tiny).previous_loss is None


def test_an_adapter_of_another_base_is_not_compared(
    work: Path, tiny: Path, others: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(others["equal"], tmp_path / "other"))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "team/other"}))
    told = run(work, tiny, previous=str(folder))
    assert (told.verdict, told.previous_loss) == ("pass", None)
    assert "the adapter in service is of team/other" in capsys.readouterr().out


def test_an_adapter_in_service_that_is_broken_is_told(work: Path, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no adapter"):
        run(work, tiny, previous=str(tmp_path))


def test_the_adapter_in_service_may_be_an_image(
    work: Path, tiny: Path, others: dict[str, Path], open_registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "adapter").symlink_to(others["worse"])
    pushed = package.package(package.Settings(work=tmp_path, image=f"{open_registry.address}/team/service:1"))
    told = run(work, tiny, previous=pushed.image_reference)
    assert told.previous_loss == run(work, tiny, previous=str(others["worse"])).previous_loss
