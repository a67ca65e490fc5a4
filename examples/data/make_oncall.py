"""Create oncall.parquet: questions to the on-call assistant of a Kubernetes platform team, with runbook-style answers.

    python examples/data/make_oncall.py [FILE]

Every answer has the same three lines (Cause, Check, Runbook), which shows at a glance whether a model learned the
format and the facts. Symptoms, wordings and names are in oncall.toml; each wording becomes one row. Digests select the
names instead of a random generator, so every Python creates the same rows; with the same pyarrow version the file is
identical byte for byte.
"""

import sys
import tomllib
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def main() -> None:
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "oncall.parquet")


def write(file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    table = pa.table({"messages": pa.array(rows(), pa.list_(message))})
    pq.write_table(table, file, compression="zstd", compression_level=19)


def rows() -> list[list[dict[str, str]]]:
    """Return all rows as OpenAI messages, in an order that mixes the symptoms."""
    parts = tomllib.loads((HERE / "oncall.toml").read_text())
    answers: dict[str, str] = {}
    for symptom in parts["symptom"]:
        answers.update(questions(symptom, parts["names"], parts["frames"]))
    return [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answers[question]}]
        for question in sorted(answers, key=digest)
    ]


def questions(symptom: dict[str, Any], kinds: dict[str, list[str]], frames: list[str]) -> Iterator[tuple[str, str]]:
    """Yield a question for each wording of a symptom, with its answer."""
    answer = f"Cause: {symptom['cause']}\nCheck: {symptom['check']}\nRunbook: {symptom['runbook']}"
    for wording in symptom["wordings"]:
        names = {kind: pick(values, f"{wording}/{kind}") for kind, values in kinds.items()}
        question = pick(frames, f"{wording}/frame").format(wording.format(**names))
        yield question, answer.format(**names)


def pick(options: Sequence[str], key: str) -> str:
    return options[int.from_bytes(digest(key)[:8], "big") % len(options)]


def digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


if __name__ == "__main__":
    main()
