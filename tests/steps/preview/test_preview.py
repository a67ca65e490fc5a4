"""What is shown of rows is what is trained on, and what would spoil a training is warnings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trainable_model
from tuning import small_model

from steps.download.settings import Settings as DownloadSettings
from steps.download.step import download
from steps.preview.settings import Result, Settings
from steps.preview.step import LEARNED, LEARNED_END, preview


@pytest.fixture
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.getbasetemp())


def shown(work: Path, tiny: Path, given: list, **settings: object) -> Result:
    trainable_model.write_rows(work / "given.parquet", given)
    download(DownloadSettings(work=work, source=work / "given.parquet", eval_split=0.2))
    return preview(Settings(work=work, model=str(tiny), **settings))


def test_the_answers_are_marked(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = trainable_model.chat_rows(20)
    result = shown(tmp_path, tiny, rows, rows=2, max_length=256)
    out = capsys.readouterr().out
    assert (result.rows, result.warnings) == (16, [])
    assert out.count("--- row ") == 2
    assert 0 < result.learned_tokens < result.tokens
    marked = [part.split(LEARNED_END)[0] for part in out.split("--- 16 rows")[0].split(LEARNED)[1:]]
    answers = {row[-1]["content"] for row in rows}
    assert sum(any(answer in part for answer in answers) for part in marked) == 2


def test_all_is_marked_where_all_is_learned(tiny: Path, tmp_path: Path) -> None:
    rows = trainable_model.chat_rows(10)
    result = shown(tmp_path, tiny, rows, max_length=256, training_arguments={"assistant_only_loss": False})
    assert result.learned_tokens == result.tokens


def test_what_would_spoil_a_training_is_told(tiny: Path, tmp_path: Path) -> None:
    rows = [*trainable_model.chat_rows(10), *trainable_model.chat_rows(10)]
    long = [[{"role": "user", "content": "Why? " * 30}, {"role": "assistant", "content": "Because. " * 60}]] * 3
    result = shown(tmp_path, tiny, [*rows, *long], max_length=80)
    warnings = "\n".join(result.warnings)
    assert "rows are duplicates" in warnings
    assert "held-out rows are also training rows" in warnings
    assert "increase max_length" in warnings or "are dropped" in warnings


def test_the_share_of_truncated_rows_and_tokens(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = trainable_model.chat_rows(20)
    whole = shown(tmp_path / "whole", tiny, rows, max_length=4096)
    assert "truncated" not in capsys.readouterr().out
    cut = shown(tmp_path / "cut", tiny, rows, max_length=whole.longest - 1)
    longest_rows = next(n for n in range(1, 17) if cut.tokens == whole.tokens - n)
    expected = (
        f"{longest_rows} of 16 rows are truncated to max_length={whole.longest - 1}, which removes "
        f"{longest_rows / whole.tokens:.1%} of the tokens"
    )
    assert f"--- {expected}\n" in capsys.readouterr().out
    assert cut.warnings == [f"{expected}: increase max_length (longest row: {whole.longest})"]


def preview_command(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a separate process: a fork can hang at its end, after threads of pyarrow and tokenizers."""
    return subprocess.run(
        [sys.executable, "-m", "workflows.cli", *map(str, arguments)], capture_output=True, text=True
    )


def test_the_command_fetches_and_shows(tiny: Path, tmp_path: Path) -> None:
    trainable_model.write_rows(tmp_path / "rows" / "a.parquet", trainable_model.chat_rows(20))
    flags = command(tmp_path, tiny)
    without = preview_command(*flags)
    assert without.returncode == 2 and "pass --source FOLDER" in without.stderr
    done = preview_command(*flags, "--source", tmp_path / "rows")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--- row ") == 1
    assert "--- 18 rows" in done.stdout


TABLES = Path(__file__).parents[2] / "data" / "formats"


def test_the_command_reads_tables(tiny: Path, tmp_path: Path) -> None:
    flags = command(tmp_path, tiny)
    table = preview_command(*flags, "--rows", "20", "--source", TABLES / "tables/delta")
    assert table.returncode == 0, table.stderr
    assert "ok clean volume" in table.stdout and "DELETED" not in table.stdout
    refused = preview_command(*flags, "--source", TABLES / "shapes/encrypted")
    assert refused.returncode == 2 and "an encrypted parquet file, which is not supported" in refused.stderr


def command(tmp_path: Path, tiny: Path) -> list[Any]:
    """Return the arguments of the command for rows on a volume."""
    workspace = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "weekly"},
        "tuning": {
            "preset": {"name": "smollm2-135m-instruct"},
            "method": "qlora",
            "input": {"volumeSource": {"persistentVolumeClaim": {"claimName": "rows"}}},
            "output": {"image": "registry.example.com/a/b:1"},
        },
    }
    (tmp_path / "workspace.yaml").write_text(json.dumps(workspace))

    return ["preview", tmp_path / "workspace.yaml", "--set", f"model.repository={tiny}", "--rows", "1"]


CHAT = '{{"messages": [{{"role": "user", "content": "Disk {0}?"}}, {{"role": "assistant", "content": "Clean {0}."}}]}}'
FILES = {
    "a.jsonl": "\n".join(map(CHAT.format, range(10))),
    "a.json": f"[{', '.join(map(CHAT.format, range(10)))}]",
    "a.csv": "\n".join(["prompt,completion", *(f"Disk {n}?,Clean {n}." for n in range(10))]),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_other_formats(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / name).write_text(FILES[name])
    download(DownloadSettings(work=tmp_path, source=tmp_path / name, eval_split=0))
    result = preview(Settings(work=tmp_path, model=str(tiny), rows=10))
    out = capsys.readouterr().out
    assert (result.rows, result.warnings) == (10, [])
    assert all(f"Disk {n}?" in out and f"Clean {n}." in out for n in range(10))
