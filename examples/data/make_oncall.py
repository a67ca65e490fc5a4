"""Create oncall.parquet: questions to the on-call assistant of a Kubernetes platform team, with runbook-style answers.

    python examples/data/make_oncall.py [FILE]

Every answer has the same four lines (Cause, Check, Fix, Runbook), which shows at a glance whether a model learned the
format. Symptoms, wordings and names are in oncall.toml. Digests select them instead of a random generator, so every
Python creates the same rows; with the same pyarrow version the file is identical byte for byte.
"""

import sys
import tomllib
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROWS_EACH = 15


def main() -> None:
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "oncall.parquet")


def write(file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    table = pa.table({"messages": pa.array(rows(), pa.list_(message))})
    pq.write_table(table, file, compression="zstd", compression_level=19)


def rows() -> list[list[dict[str, str]]]:
    """Return all rows as OpenAI messages, without duplicate questions, in an order that mixes the symptoms."""
    parts = tomllib.loads((HERE / "oncall.toml").read_text())
    found: dict[str, str] = {}
    for number, symptom in enumerate(parts["symptom"], start=101):
        found.update(questions(number, symptom, parts["names"], parts["frames"]))
    return [
        [{"role": "user", "content": question}, {"role": "assistant", "content": found[question]}]
        for question in sorted(found, key=digest)
    ]


def questions(
    number: int, symptom: dict[str, Any], kinds: dict[str, list[str]], frames: list[str]
) -> Iterator[tuple[str, str]]:
    """Yield ROWS_EACH different questions about a symptom, with their answers."""
    answer = f"Cause: {symptom['cause']}\nCheck: {symptom['check']}\nFix: {symptom['fix']}\nRunbook: RB-{number}"
    questions_seen: set[str] = set()
    for attempt in count():
        names = {kind: pick(values, f"{number}/{attempt}/{kind}") for kind, values in kinds.items()}
        wording = symptom["wordings"][len(questions_seen) % len(symptom["wordings"])]
        question = pick(frames, f"{number}/{attempt}/frame").format(wording.format(**names))
        if question not in questions_seen:
            questions_seen.add(question)
            yield question, answer.format(**names)
        if len(questions_seen) == ROWS_EACH:
            return


def pick(options: Sequence[str], key: str) -> str:
    return options[int.from_bytes(digest(key)[:8], "big") % len(options)]


def digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


if __name__ == "__main__":
    main()
