"""Row sets of the comparison: short conversations, conversations of several lengths, and long ones.

All come from the examples of rows.parquet. Contenders with another data pipeline than trl's read the same rows as
tokens.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LENGTH = 1024
"""Maximum tokens of a row, in all contenders; no row is longer."""
# SmolLM2's template with the generation tags that trl needs for assistant_only_loss.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful AI assistant named "
    "SmolLM, trained by Hugging Face<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
)


@dataclass(frozen=True)
class RowSet:
    """A kind of conversation."""

    rows: int
    """Number of rows."""
    turns: tuple[int, ...]
    """Numbers of questions of a conversation, of which each row gets one at random."""


SETS = {
    "short": RowSet(64, (1,)),
    "conversations": RowSet(40, (1, 1, 1, 1, 2, 2, 3, 4, 6)),
    "long": RowSet(16, (11, 12)),
}


def write_rows(work: Path, row_set: RowSet, seed: int) -> None:
    """Write ``dataset/train.parquet`` of the work directory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    examples = pq.read_table(Path(__file__).parent / "rows.parquet").column("messages").to_pylist()
    rng = random.Random(seed)
    rows = []
    for _ in range(row_set.rows):
        turns = [rng.choice(examples) for _ in range(rng.choice(row_set.turns))]
        rows.append([message for turn in turns for message in turn if message["role"] != "system"])
    file = work / "dataset" / "train.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table({"messages": rows}), file)


def write_tokens(work: Path, model: Path) -> None:
    """Write the same rows as ``tokens.jsonl``, with the loss on answers only."""
    import pyarrow.parquet as pq
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    with (work / "tokens.jsonl").open("w") as file:
        for messages in pq.read_table(work / "dataset" / "train.parquet").column("messages").to_pylist():
            row = tokenizer.apply_chat_template(
                messages,
                chat_template=TEMPLATE,
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=True,
                truncation=True,
                max_length=LENGTH,
            )
            ids = row["input_ids"]
            labels = [one if mask else -100 for one, mask in zip(ids, row["assistant_masks"], strict=True)]
            file.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")
