"""Pairs of answers: how they become tokens, and a training on them, killed and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trainable_model import chat_rows, write_rows
from tuning import losses, quick, small_model, with_rows

from steps.download import step as download
from steps.models.model import load_tokenizer
from steps.runtime.errors import BadInput
from steps.tune import dpo
from steps.tune.checkpoints import MARKER

DPO: dict[str, Any] = {"objective": "dpo", "beta": 0.5, "max_steps": 8, "dropout": 0.0, "learning_rate": 2e-3}


@pytest.fixture
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.getbasetemp())


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


def test_pairs_share_their_prompt_and_end_with_the_turn(tiny: Path) -> None:
    tokenizer = load_tokenizer(tiny)
    for pair in dpo.pairs(tokenizer, chat_rows(5), rejected(5), 128):
        prompt, chosen, other = map(tokenizer.decode, (pair.prompt_ids, pair.chosen_ids, pair.rejected_ids))
        assert prompt.endswith("<|im_start|>assistant\n")
        assert chosen.startswith("Number") and chosen.endswith("as all numbers are.<|im_end|>")
        assert other.startswith("No. ") and other.endswith("!<|im_end|>")


def test_long_answers_are_cut_and_pairs_without_room_left_out(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = load_tokenizer(tiny)
    whole = dpo.pairs(tokenizer, chat_rows(4), rejected(4), 128)
    length = min(len(pair.prompt_ids) for pair in whole) + 2
    cut = dpo.pairs(tokenizer, chat_rows(4), rejected(4), length)
    assert 0 < len(cut) < 4
    for pair in cut:
        assert len(pair.chosen_ids) == len(pair.rejected_ids) == length - len(pair.prompt_ids)
        assert pair.chosen_ids != pair.rejected_ids
    assert f"of 4 pairs 4 are longer than {length} tokens" in capsys.readouterr().out
    with pytest.raises(BadInput, match="no two different answers in any of the 4 pairs"):
        dpo.pairs(tokenizer, chat_rows(4), rejected(4), 3)


def test_it_learns_to_prefer_and_a_kill_changes_nothing(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = with_pairs(tmp_path / "work")
    first = quick(work, tiny, **DPO)
    entries = history(work, 8)
    assert entries[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # nothing is preferred yet: log 2
    assert entries[-1]["loss"] < 0.5 * entries[0]["loss"]
    assert entries[-1]["rewards/margins"] > 1 > abs(entries[0]["rewards/margins"])
    assert entries[-1]["rewards/accuracies"] == 1
    assert "on 16 pairs" in capsys.readouterr().out
    told = [json.loads(line) for line in (work / "report" / "train.jsonl").read_text().splitlines()]
    assert [line["rewards/margins"] for line in told] == [entry["rewards/margins"] for entry in entries]
    curve = losses(work)
    (work / "checkpoints" / "checkpoint-8" / MARKER).unlink()
    again = quick(work, tiny, **DPO)
    assert "going on from step 7" in capsys.readouterr().out
    assert losses(work) == pytest.approx(curve, abs=1e-6)
    assert again.adapter_digest == first.adapter_digest


def test_the_chosen_answers_are_what_sft_learns(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = with_pairs(tmp_path / "work")
    quick(work, tiny, max_steps=2)
    told = capsys.readouterr().out
    assert "objective sft learns the chosen ones alone" in told
    assert "on 16 rows" in told
    assert losses(work)[0] > 3  # of tokens, not of a preference: log 2


def test_dpo_on_other_data_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the data has no rejected ones") as caught:
        quick(with_rows(tmp_path / "work"), tiny, **DPO)
    assert "chosen and rejected" in caught.value.fix


def test_the_download_refuses_other_data_before_a_gpu_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    write_rows(file, chat_rows(4))
    with pytest.raises(BadInput, match="the data has no rejected ones"):
        download.download(download.Settings(work=tmp_path / "work", source=file, objective="dpo"))
    assert not (tmp_path / "work" / "dataset" / "manifest.json").exists()
    pq.write_table(pa.table({"prompt": ["Hm?"] * 4, "chosen": list("abcd"), "rejected": list("efgh")}), file)
    settings = download.Settings(work=tmp_path / "work", source=file, objective="dpo", eval_split=0)
    assert download.download(settings).data_format == "preference"


def test_what_means_nothing_to_pairs_is_refused(tiny: Path, tmp_path: Path) -> None:
    given = {"packing": True, "loss_type": "dft", "truncation_mode": "keep_end", "assistant_only_loss": False}
    with pytest.raises(BadInput) as caught:
        quick(with_pairs(tmp_path / "work"), tiny, **DPO, training_arguments=given)
    for key in ("packing", "loss_type", "truncation_mode"):
        assert f"training_arguments.{key}: " in caught.value.message
    assert "assistant_only_loss" not in caught.value.message


def test_every_argument_of_sft_alone_is_known() -> None:
    import dataclasses

    from trl import DPOConfig, SFTConfig

    from steps.tune.unsupported_arguments import UNSUPPORTED

    of_sft, of_dpo = ({field.name for field in dataclasses.fields(kind)} for kind in (SFTConfig, DPOConfig))
    assert of_sft - of_dpo <= set(dpo.SFT_ONLY) | set(UNSUPPORTED)
