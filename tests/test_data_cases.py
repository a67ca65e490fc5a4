"""Output of ``argotune preview`` for each case of ``tests/data/cases``: the learned text, warnings, or errors.

The other cases: ``question_text`` (06) in tests/workflows/test_question_text_cases.py, ``yaml_forms`` (12) in
tests/workflows/spec/test_spec_yaml_forms.py, ``training_arguments`` (16) in tests/test_training_argument_cases.py.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trainable_model

from steps.download.settings import Settings as DownloadSettings
from steps.download.step import download
from steps.preview.settings import Settings as PreviewSettings
from steps.preview.step import LEARNED, LEARNED_END
from steps.preview.step import preview as preview_rows
from steps.runtime import entrypoint
from steps.runtime.errors import BadInput
from steps.runtime.options import Options
from workflows.commands import local_steps, preview
from workflows.compile.arguments import arguments
from workflows.errors import InvalidInput

CASES = Path(__file__).parent / "data" / "cases"
FORMATS = Path(__file__).parent / "data" / "formats"
PLAIN = "01-weight-zero/workspace.yaml"
END = "<|im_end|>"
NOT_RENDERED = "the model's chat template does not render these fields of messages: "
MISSING = "columns not found: `answer`"


@dataclass(frozen=True)
class Shown:
    """Output of a preview; digits are written as N."""

    learned: str = ""
    """Text that every row learns."""
    warnings: tuple[str, ...] = ()
    """Parts of the warnings, in order."""
    contains: str = ""
    error: str = ""
    """Part of the error, instead of the rows."""


def learned(text: str, *warnings: str, contains: str = "") -> Shown:
    return Shown(text + END, warnings, contains)


CLEAN = learned("Clean volume N.")
NO_STOP = Shown("Clean volume N.", ("contain no learned stop token",), "[user] Disk N full?\n[assistant] ")
OLD, NEW, NEW_TEXT = learned("OLD answer N."), learned("NEW answer N."), learned("NEW answer N")
NEARLY_EQUAL = learned("NEW answer N", "2 rows are nearly equal to another row")
PREVIEWS: Mapping[tuple[str, str], Shown] = {
    (PLAIN, "01-weight-zero/zero"): learned("No. Use rollout restart for pod N."),
    (PLAIN, "01-weight-zero/one"): learned("Use rollout restart for pod N."),
    (PLAIN, "01-weight-zero/sharegpt"): learned("No, use rollout restart N."),
    ("02-reasoning-field/workspace.yaml", "02-reasoning-field/reasoning"): Shown(
        error=f"{NOT_RENDERED}`reasoning_content` in rows 1, 2, 3"
    ),
    ("02-reasoning-field/workspace.yaml", "02-reasoning-field/thinking"): Shown(
        error=f"{NOT_RENDERED}`thinking` in rows 1, 2, 3"
    ),
    ("02-reasoning-field/workspace.yaml", "02-reasoning-field/train-false"): learned("GOOD N.", contains="BAD N."),
    ("03-chat-template-preview/workspace.yaml", "03-chat-template-preview/rows"): NO_STOP,
    ("03-chat-template-preview/broken-template.yaml", "03-chat-template-preview/rows"): Shown(
        error="29: training_config.ModelConfig.chat_template: line 1 does not parse"
    ),
    ("03-chat-template-preview/no-generation-prompt.yaml", "03-chat-template-preview/rows"): Shown(
        error="29: training_config.ModelConfig.chat_template: has no generation prompt"
    ),
    (PLAIN, "tables/spark"): learned("ok clean volume N."),
    (PLAIN, "tables/delta"): learned("ok clean volume N."),
    (PLAIN, "tables/delta-checkpoint"): Shown(error="_delta_log lists files that are not in the folder: x"),
    **{
        (PLAIN, f"shapes/{shape}"): CLEAN
        for shape in (
            "comp-brotli",
            "comp-gzip",
            "comp-lz4",
            "comp-none",
            "comp-zstd",
            "conv-role-content",
            "dict-nested",
            "empty-group",
            "fixed-list",
            "json-text",
            "list-of-map",
            "list-view",
            "parts",
        )
    },
    (PLAIN, "shapes/mix-lists"): learned("Clean volume N.", "12 rows are duplicates", "2 held-out rows"),
    (PLAIN, "shapes/arrow-json"): learned("N", contains='{"a":N}'),
    (PLAIN, "shapes/null-input"): learned("yN"),
    (PLAIN, "shapes/null-string"): learned("yN"),
    (PLAIN, "shapes/null-type"): Shown(error="null value: 12 (rows 0, 1, 2, 3, 4, ...)"),
    (PLAIN, "shapes/no-group"): Shown(error="a.parquet: the file has no rows"),
    (PLAIN, "shapes/encrypted"): Shown(error="a.parquet: an encrypted parquet file, which is not supported"),
    (PLAIN, "shapes/binary"): Shown(error="`messages` is list<item: struct<role: binary, content: binary>>"),
    (PLAIN, "shapes/binary-text"): Shown(error="`prompt` is binary and `completion` is binary"),
    (PLAIN, "shapes/dots-beside"): learned("A N"),
    (PLAIN, "shapes/dots"): Shown(error="no columns to tune on, only `data.prompt`, `data.completion`"),
    ("05-parquet-shapes/dots.yaml", "shapes/dots"): learned("A N"),
    ("09-ultrafeedback/workspace.yaml", "09-ultrafeedback/rows"): Shown(
        error="the data has pairs of answers (chosen and rejected), which objective sft does not learn from"
    ),
    ("09-ultrafeedback/dpo.yaml", "09-ultrafeedback/rows"): learned("Clean it N.", contains="rejected\nNo idea N."),
    ("09-ultrafeedback/chosen.yaml", "09-ultrafeedback/rows"): learned("Clean it N."),
    ("09-ultrafeedback/mapped.yaml", "09-ultrafeedback/rows"): learned("Clean it N."),
    ("09-ultrafeedback/kaito.yaml", "09-ultrafeedback/rows"): learned("Clean it N."),
    ("11-explicit-columns/messages.yaml", "11-explicit-columns/rows"): OLD,
    ("11-explicit-columns/messages.yaml", "11-explicit-columns/pref"): NEW,
    ("11-explicit-columns/kaito-messages.yaml", "11-explicit-columns/rows"): OLD,
    ("11-explicit-columns/kaito-messages.yaml", "11-explicit-columns/pref"): NEW,
    ("11-explicit-columns/prompt.yaml", "11-explicit-columns/rows"): NEW_TEXT,
    ("11-explicit-columns/prompt.yaml", "11-explicit-columns/pref"): Shown(error=MISSING),
    ("11-explicit-columns/kaito-context.yaml", "11-explicit-columns/rows"): NEW_TEXT,
    ("11-explicit-columns/kaito-context.yaml", "11-explicit-columns/pref"): Shown(error=MISSING),
    ("11-explicit-columns/text.yaml", "11-explicit-columns/rows"): NEARLY_EQUAL,
    ("11-explicit-columns/text.yaml", "11-explicit-columns/pref"): Shown(error=MISSING),
    ("17-trailing-space/workspace.yaml", "17-trailing-space/newline"): learned("Clean volume N.\n"),
    ("17-trailing-space/workspace.yaml", "17-trailing-space/spaces"): learned("Clean volume N.  "),
    ("17-trailing-space/workspace.yaml", "17-trailing-space/lead"): learned("\n\n Clean volume N."),
    ("20-system-column/workspace.yaml", "20-system-column/rows"): learned(
        "Arr, clean N.", "`system` is not used: map it", "`tools` is not used: map it"
    ),
    ("20-system-column/workspace.yaml", "20-system-column/alpaca"): learned(
        "done N", "`system` is not used: map it", "`history` is not used"
    ),
}
"""Workspace and folder of rows: what the preview shows."""


@dataclass
class Output:
    """Captured output of a preview."""

    text: str
    learned: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainable_model.make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, Path], Output]:
    """Run the command with the small model; its steps run in this process, by the arguments of their pods."""

    def run_step(name: str, settings: Options, folder: str, environment: Mapping[str, str] | None = None) -> int:
        update = {"work": Path(folder)} | ({"model": str(model)} if name == "preview" else {})
        args = arguments(settings.model_copy(update=update))
        if name == "download":
            download(entrypoint.parse(DownloadSettings, args, name))
        else:
            preview_rows(entrypoint.parse(PreviewSettings, args, name))
        return 0

    def run_preview(workspace: str, source: Path) -> Output:
        parser = argparse.ArgumentParser()
        preview.add_arguments(parser)
        preview.run(parser.parse_args([str(CASES / workspace), "--source", str(source), "--rows", "99"]))
        text = re.sub(r"\d+", "N", shown := capsys.readouterr().out)
        rows = re.split(r"--- N rows", text)[0]
        warnings = shown.rpartition("--- ")[2].split("warning: ")[1:]
        return Output(text, {part.split(LEARNED_END)[0] for part in rows.split(LEARNED)[1:]}, warnings)

    monkeypatch.setattr(local_steps, "run_step", run_step)
    return run_preview


@pytest.mark.parametrize(("workspace", "rows"), PREVIEWS)
def test_preview(run: Callable[[str, Path], Output], workspace: str, rows: str) -> None:
    expected = PREVIEWS[workspace, rows]
    source = FORMATS / rows if rows.startswith(("tables/", "shapes/")) else CASES / rows
    if expected.error:
        with pytest.raises((BadInput, InvalidInput)) as raised:
            run(workspace, source)
        assert expected.error in str(raised.value)
        fixes = raised.value.fix if isinstance(raised.value, BadInput) else raised.value.problems[0].fix
        assert fixes
        return
    output = run(workspace, source)
    assert output.learned == {expected.learned}
    assert expected.contains in output.text
    assert len(output.warnings) == len(expected.warnings)
    assert all(part in warning for part, warning in zip(expected.warnings, output.warnings, strict=True))


def test_every_case_is_tested() -> None:
    workspaces = {str(path.relative_to(CASES)) for path in CASES.glob("[0-9]*/*.yaml")}
    assert {workspace for workspace, _ in PREVIEWS} >= workspaces
    sources = {rows for _, rows in PREVIEWS}
    folders = {path.parent for path in CASES.glob("[0-9]*/*/*.parquet")}
    assert {str(path.relative_to(CASES)) for path in folders} <= sources
    for kind in ("tables", "shapes"):
        assert {f"{kind}/{path.name}" for path in (FORMATS / kind).iterdir()} <= sources
