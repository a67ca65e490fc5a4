"""Parameters from the form of Argo's UI are checked before anything is created, all at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from steps.preflight.settings import Settings
from steps.runtime import entrypoint
from steps.runtime.errors import BadInput

WORK = ["--work", "/tmp"]


@pytest.fixture(autouse=True)
def in_a_workflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARGOTUNE_OUTPUTS", str(tmp_path))


def error_of(*flags: str) -> BadInput:
    with pytest.raises(BadInput) as caught:
        entrypoint.parse(Settings, [*WORK, *flags], "preflight")
    return caught.value


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "three"], "parameter epochs: must be a number, not 'three'"),
        (["--epochs", ""], "parameter epochs: must be a number, not ''"),
        (["--epochs", "0"], "parameter epochs: must be greater than 0, not 0"),
        (["--max-steps", "1.5"], "parameter max-steps: must be an integer, not '1.5'"),
        (["--learning-rate", "2e-4x"], "parameter learning-rate: must be a number, not '2e-4x'"),
        (["--learning-rate", "nan"], "parameter learning-rate: must be a finite number, not 'nan'"),
        (["--batch-size", "-1"], "parameter batch-size: must be greater than or equal to 1, not -1"),
        (["--rank", "[8]"], "parameter rank: must be an integer, not '[8]'"),
        (["--alpha", "1e9"], "parameter alpha: must be less than or equal to 100000, not 1e9"),
        (["--push", "maybe", "--image", "r.io/a:1"], "parameter push: must be true or false, not 'maybe'"),
        (
            ["--push", "true", "--image", ""],
            "parameter image: is required to push the adapter: set an image reference, or push=false",
        ),
        (["--urls", '{"a": "b"}'], "parameter data-urls: must be a list, not {'a': 'b'}"),
    ],
    ids=range(12),
)
def test_a_value_is_rejected_by_the_name_of_its_parameter(flags: list[str], message: str) -> None:
    error = error_of(*flags)
    assert error.message == message
    assert "-p NAME=VALUE" in error.fix


def test_a_list_of_urls_that_is_no_json() -> None:
    assert "parameter data-urls: must be one URL a line, or a JSON list" in error_of("--urls", "[https://x").message


@pytest.mark.parametrize("text", ["https://a.io/1\nhf://datasets/o/n", '["https://a.io/1", "hf://datasets/o/n"]'])
def test_urls_are_lines_or_json(text: str) -> None:
    settings = entrypoint.parse(Settings, [*WORK, "--urls", text], "preflight")
    assert settings.urls == ["https://a.io/1", "hf://datasets/o/n"]


def test_all_errors_at_once_with_the_exit_code_of_bad_input() -> None:
    flags = [*WORK, "--epochs", "three", "--learning-rate", "fast", "--urls", "[", "--push", "true", "--image", " "]
    done = subprocess.run(
        [sys.executable, "-m", "steps.preflight", *flags], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 2
    for name in ("epochs", "learning-rate", "data-urls", "image"):
        assert f"parameter {name}: " in done.stderr
    assert "fix: submit again" in done.stderr and "Traceback" not in done.stderr


def test_no_image_is_required_without_a_push() -> None:
    assert not entrypoint.parse(Settings, [*WORK, "--push", "false", "--image", ""], "preflight").push


def test_a_flag_is_named_outside_a_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARGOTUNE_OUTPUTS")
    assert error_of("--epochs", "three").message.startswith("--epochs: ")
