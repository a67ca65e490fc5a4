"""The output layer computes positions with labels only; the loss is the same."""

from pathlib import Path
from typing import Any

import pytest
from trl.kernels import chunked_logprob
from trl.trainer import utils
from tuning import losses, quick, small_model, with_rows

from steps.data.dataset import read_messages
from steps.models.model import load_tokenizer
from steps.tune import ignored_logits

STEPS, BATCH = 2, 4


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of positions in each call of the loss."""
    counts: list[int] = []
    original = chunked_logprob.ChunkedLogProbFunction.apply

    class Counting:
        @staticmethod
        def apply(hidden: Any, *rest: Any) -> Any:
            counts.append(len(hidden))
            return original(hidden, *rest)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", Counting)
    return counts


def train(work: Path, tiny: Path, **arguments: Any) -> list[float]:
    with_rows(work)
    quick(work, tiny, training_arguments=arguments, max_steps=STEPS, batch_size=BATCH, dropout=0.0)
    return losses(work)


@pytest.mark.parametrize("arguments", [{"train_sampling_strategy": "random"}, {"padding_free": True}])
def test_the_loss_is_the_same_with_less_work(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scored: list[int],
    arguments: dict[str, Any],
) -> None:
    tiny = small_model(tmp_path_factory.getbasetemp())
    monkeypatch.setattr(utils, "_use_triton", utils._use_triton)  # restored after the test
    skipped = train(tmp_path / "skipped", tiny, **arguments)
    learned = scored[-STEPS:]  # the rehearsal of the settings comes first
    monkeypatch.setattr(utils, "_use_triton", chunked_logprob._use_triton)
    monkeypatch.setattr(ignored_logits, "skip_ignored_logits", lambda: None)
    assert train(tmp_path / "all", tiny, **arguments) == pytest.approx(skipped, abs=1e-4)
    scored = scored[-STEPS:]
    assert len(learned) == len(scored) == STEPS
    assert max(learned) < min(scored)
    rows = read_messages(tmp_path / "all" / "dataset" / "train.parquet")
    tokenizer = load_tokenizer(tiny)
    answers = sorted(len(tokenizer(row[-1]["content"]).input_ids) + 1 for row in rows)  # 1: end token
    assert sum(answers[:BATCH]) <= min(learned) and max(learned) <= sum(answers[-BATCH:]) + 2 * BATCH
