"""Direct preference optimization: tokenized pairs, and a training that is resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trainable_model import chat_rows, make_tokenizer, write_rows
from tuning import losses, quick, with_rows

from steps.download import step as download
from steps.models.model import load_tokenizer
from steps.runtime.errors import BadInput
from steps.tune import dpo
from steps.tune.checkpoints import MARKER

DPO: dict[str, Any] = {"objective": "dpo", "beta": 0.5, "max_steps": 8, "dropout": 0.0, "learning_rate": 2e-3}


def rejected(count: int) -> list[list[dict[str, str]]]:
    return [[{"role": "assistant", "content": f"No. {n}!"}] for n in range(count)]


def with_pairs(work: Path, count: int = 16) -> Path:
    file = work / "dataset" / "train.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table({"messages": chat_rows(count), "rejected": rejected(count)}), file)
    return work


def history(work: Path, step: int) -> list[dict[str, float]]:
    state = json.loads((work / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json").read_text())
    return [entry for entry in state["log_history"] if "loss" in entry]


def test_answers_share_their_prompt_and_include_the_end_token(tiny: Path) -> None:
    tokenizer = load_tokenizer(tiny)
    for pair in dpo.pairs(tokenizer, chat_rows(5), rejected(5), 128):
        prompt, chosen, other = map(tokenizer.decode, (pair.prompt_ids, pair.chosen_ids, pair.rejected_ids))
        assert prompt.endswith("<|im_start|>assistant\n")
        assert chosen.startswith("Number") and chosen.endswith("as all numbers are.<|im_end|>")
        assert other.startswith("No. ") and other.endswith("!<|im_end|>")


def test_long_answers_are_truncated_and_equal_ones_skipped(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = load_tokenizer(tiny)
    full = dpo.pairs(tokenizer, chat_rows(4), rejected(4), 128)
    length = min(len(pair.prompt_ids) for pair in full) + 2
    truncated = dpo.pairs(tokenizer, chat_rows(4), rejected(4), length)
    assert 0 < len(truncated) < 4
    for pair in truncated:
        assert len(pair.chosen_ids) == len(pair.rejected_ids) == length - len(pair.prompt_ids)
        assert pair.chosen_ids != pair.rejected_ids
    assert f"max_length={length} truncates 4 of 4 pairs" in capsys.readouterr().out
    with pytest.raises(BadInput, match="no two different answers in any of the 4 pairs"):
        dpo.pairs(tokenizer, chat_rows(4), rejected(4), 3)


def test_it_learns_to_prefer_and_resumes(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = with_pairs(tmp_path / "work")
    first = quick(work, tiny, **DPO)
    entries = history(work, 8)
    assert entries[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # no preference yet: log 2
    assert entries[-1]["loss"] < 0.5 * entries[0]["loss"]
    assert entries[-1]["rewards/margins"] > 1 > abs(entries[0]["rewards/margins"])
    assert entries[-1]["rewards/accuracies"] == 1
    assert "on 16 pairs" in capsys.readouterr().out
    lines = [json.loads(line) for line in (work / "report" / "train.jsonl").read_text().splitlines()]
    assert [line["rewards/margins"] for line in lines] == [entry["rewards/margins"] for entry in entries]
    curve = losses(work)
    (work / "checkpoints" / "checkpoint-8" / MARKER).unlink()
    again = quick(work, tiny, **DPO)
    assert "resuming from step 7" in capsys.readouterr().out
    assert losses(work) == pytest.approx(curve, abs=1e-6)
    assert again.adapter_digest == first.adapter_digest


def test_sft_rejects_pairs_of_answers(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the data has pairs of answers") as caught:
        quick(with_pairs(tmp_path / "work"), tiny, max_steps=2)
    assert "{messages: chosen}" in caught.value.fix


def test_dpo_rejects_data_without_pairs(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the data has no rejected answers") as caught:
        quick(with_rows(tmp_path / "work"), tiny, **DPO)
    assert "chosen and rejected" in caught.value.fix


def test_the_download_rejects_data_without_pairs(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    write_rows(file, chat_rows(4))
    with pytest.raises(BadInput, match="the data has no rejected answers"):
        download.download(download.Settings(work=tmp_path / "work", source=file, objective="dpo"))
    assert not (tmp_path / "work" / "dataset" / "manifest.json").exists()
    pq.write_table(pa.table({"prompt": ["Hm?"] * 4, "chosen": list("abcd"), "rejected": list("efgh")}), file)
    settings = download.Settings(work=tmp_path / "work", source=file, objective="dpo", eval_split=0)
    assert download.download(settings).data_format == "preference"


def test_arguments_without_effect_on_pairs_are_rejected(tiny: Path, tmp_path: Path) -> None:
    arguments = {"packing": True, "loss_type": "dft", "truncation_mode": "keep_end", "assistant_only_loss": False}
    with pytest.raises(BadInput) as caught:
        quick(with_pairs(tmp_path / "work"), tiny, **DPO, training_arguments=arguments)
    for key in ("packing", "loss_type", "truncation_mode"):
        assert f"training_arguments.{key}: " in caught.value.message
    assert "assistant_only_loss" not in caught.value.message


def test_every_argument_that_dpo_lacks_is_listed() -> None:
    import dataclasses

    from trl import DPOConfig, SFTConfig

    from steps.tune.unsupported_arguments import UNSUPPORTED

    sft, dpo_fields = ({field.name for field in dataclasses.fields(cls)} for cls in (SFTConfig, DPOConfig))
    assert sft - dpo_fields <= set(dpo.SFT_ONLY) | set(UNSUPPORTED)


@pytest.mark.parametrize(("earlier", "last"), [(True, None), (None, False)])
def test_weights_that_contradict_the_objective(earlier: bool | None, last: bool | None) -> None:
    marks = [{} if mark is None else {"train": mark} for mark in (earlier, last)]
    row = [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."} | marks[0],
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes."} | marks[1],
    ]
    with pytest.raises(BadInput, match="row 1: objective dpo learns the last answer only"):
        dpo.pairs(make_tokenizer(), [row], [[{"role": "assistant", "content": "No."}]], 100)
