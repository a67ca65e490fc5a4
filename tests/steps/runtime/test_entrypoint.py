"""The entrypoint of steps: a real program, real flags, real files."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from steps.runtime import files, progress, termination
from steps.runtime.entrypoint import as_text, parse, result_file
from steps.runtime.errors import BadInput
from steps.runtime.options import Options

PROGRAM = '''
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from steps.runtime.entrypoint import main
from steps.runtime.options import Options


class Greeting(Options):
    """Write a greeting."""

    work: Path
    """Work folder."""
    words: list[str]
    """Text to print, 100% of it."""
    options: dict[str, int] = {}
    times: int = 1
    model_config_: dict[str, str] = Field({}, alias="model_config")


@dataclass
class Result:
    text: str
    file: Path
    letters: int
    polite: bool = True


def greet(settings: Greeting) -> Result:
    with (settings.work / "calls").open("a") as calls:
        calls.write("x")
    BODY
    text = " ".join(settings.words * settings.times)
    (settings.work / "greeting.txt").write_text(text)
    return Result(text, settings.work / "greeting.txt", len(text))


def outputs_intact(settings: Greeting, result: Result) -> bool:
    return Path(result.file).read_text() == result.text


if __name__ == "__main__":
    main(Greeting, greet, outputs_intact=outputs_intact, result_type=Result)
'''

Greet = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def greet(tmp_path: Path) -> Greet:
    (tmp_path / "work").mkdir()

    def start(
        *flags: str, body: str = "pass", env: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        program = tmp_path / "greet.py"
        program.write_text(PROGRAM.replace("BODY", textwrap.indent(body, "    ").strip()))
        work = ("--work", str(tmp_path / "work"))
        words = ("--words", '["hello","you"]')
        command = [sys.executable, str(program), *(flags or (*work, *words))]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False)

    return start


def calls(tmp_path: Path) -> int:
    return len((tmp_path / "work" / "calls").read_text())


def test_all_invalid_flags_are_reported_together(greet: Greet) -> None:
    done = greet(
        "--words", "[not json", "--times", "many", "--options", '{"a": "b"}', "--colour", "red", "--times", "2"
    )
    assert done.returncode == 2
    message = done.stderr
    assert "--words: must be JSON" in message
    assert "--words: is required" not in message, "an unreadable value is not a missing one"
    assert "--times: must be an integer, not 'many'" in message
    assert "--times: duplicate flag" in message
    assert "--options.a: must be an integer, not 'b'" in message
    assert "--colour: unknown flag" in message
    assert "--work: is required" in message
    assert "fix: run python -m steps.greet --help" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--work"], "--work: a value is required"),
        (["--work", "--times", "2"], "--work: a value is required"),
        (["--work", "--words-file", "/dev/null"], "--work: a value is required"),
        (["work", "--times", "2"], "work: unknown flag"),
        (["--tim", "2"], "--tim: unknown flag"),
    ],
)
def test_flags_are_not_abbreviated(greet: Greet, flags: list[str], message: str) -> None:
    done = greet(*flags)
    assert done.returncode == 2
    assert message in done.stderr


def test_text_can_start_with_a_dash() -> None:
    class Question(Options):
        question: str
        image: str = "none"
        limit: float = 1.0

    parsed = parse(Question, ["--question", "--why? a=b", "--image", "", "--limit=-2e-4"])
    assert (parsed.question, parsed.image, parsed.limit) == ("--why? a=b", "", -2e-4)


def test_optional_mapping_is_json() -> None:
    class Optional(Options):
        rows: dict[str, Any] | None = None

    assert parse(Optional, ["--rows", '{"a": [1]}']).rows == {"a": [1]}
    with pytest.raises(BadInput, match="--rows: must be JSON"):
        parse(Optional, ["--rows", "{'a': 1}"])


def test_help_lists_the_fields(greet: Greet) -> None:
    done = greet("--help")
    assert done.returncode == 0
    assert "--model-config" in done.stdout
    assert "Text to print, 100% of it." in done.stdout


def test_result_is_written_as_output_parameters_and_record(greet: Greet, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    done = greet(env={"ARGOTUNE_OUTPUTS": str(outputs)})
    assert done.returncode == 0, done.stderr
    assert {file.name: file.read_text() for file in outputs.iterdir()} == {
        "text": "hello you",
        "file": str(tmp_path / "work" / "greeting.txt"),
        "letters": "9",
        "polite": "true",
    }
    record = json.loads(result_file(tmp_path / "work", "greet").read_text())
    assert record["step"] == "greet"
    assert record["settings"]["words"] == ["hello", "you"]
    assert record["result"]["letters"] == 9
    assert record["seconds"] >= 0
    assert record["started"].endswith("+00:00")


def test_finished_step_is_not_repeated(greet: Greet, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    greet()
    again = greet(env={"ARGOTUNE_OUTPUTS": str(outputs)})
    assert again.returncode == 0, again.stderr
    assert "already done" in again.stdout
    assert calls(tmp_path) == 1
    assert (outputs / "text").read_text() == "hello you", "a reused result is published too"


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"result": 3}', '{"step": "greet", "settings":'])
def test_step_with_a_damaged_record_is_repeated(greet: Greet, tmp_path: Path, content: str | None) -> None:
    greet()
    record = result_file(tmp_path / "work", "greet")
    if content is None:
        record.unlink()
    else:
        record.write_text(content)
    assert greet().returncode == 0
    assert calls(tmp_path) == 2
    assert json.loads(record.read_text())["result"]["letters"] == 9


@pytest.mark.parametrize("damage", ["deleted", "changed"])
def test_step_with_damaged_outputs_is_repeated(greet: Greet, tmp_path: Path, damage: str) -> None:
    greet()
    output = tmp_path / "work" / "greeting.txt"
    output.unlink() if damage == "deleted" else output.write_text("hel")
    assert greet().returncode == 0
    assert calls(tmp_path) == 2
    assert output.read_text() == "hello you"


def test_step_with_other_settings_is_repeated(greet: Greet, tmp_path: Path) -> None:
    greet()
    greet("--work", str(tmp_path / "work"), "--words", '["bye"]')
    assert calls(tmp_path) == 2
    assert (tmp_path / "work" / "greeting.txt").read_text() == "bye"


FULL = 'open("/dev/full", "w", buffering=1).write("no room\\n")'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "body",
    [
        FULL,
        f'try:\n    {FULL}\nexcept OSError as error:\n    raise RuntimeError("save failed") from error',
        'raise ValueError("I/O error: No space left on device (os error 28)")',
    ],
    ids=["plain", "wrapped", "safetensors"],
)
def test_full_disk_is_reported_as_bad_input(greet: Greet, body: str) -> None:
    done = greet(body=body)
    assert done.returncode == 2, done.stderr
    assert "no space left" in done.stderr
    assert "fix: free space there" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("pod", "code"), [("", 2), ("10.0.0.1", 1)])
def test_a_broken_disk_is_retried_only_in_a_pod(greet: Greet, pod: str, code: int) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": pod} if pod else {}
    done = greet(body="raise OSError(5, 'x', '/work/a')", env=environment)
    assert (done.returncode, "unexpected" in done.stderr) == (code, False), done.stderr


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (
            'from steps.runtime.errors import StepError; raise StepError("it hung up", "try again")',
            1,
            "fix: try again",
        ),
        (
            'from steps.runtime.errors import InsufficientCapacity; raise InsufficientCapacity("no quota")',
            4,
            "error: no quota",
        ),
        ('from steps.runtime.errors import TimeLimit; raise TimeLimit("too late")', 6, "error: too late"),
        ("1 / 0", 1, "unexpected ZeroDivisionError at greet.py:"),
        ("raise KeyboardInterrupt", 5, "cancelled"),
        ("import no_such_library", 2, "greet needs no_such_library, which is not installed"),
    ],
)
def test_failure_has_an_exit_code_and_no_traceback(greet: Greet, body: str, code: int, message: str) -> None:
    done = greet(body=body)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_variable_prints_the_traceback(greet: Greet) -> None:
    done = greet(body="1 / 0", env={"ARGOTUNE_DEBUG": "1"})
    assert "Traceback" in done.stderr


def test_text_outside_the_terminal_encoding_does_not_fail_the_step(greet: Greet, tmp_path: Path) -> None:
    done = greet(body='print("\\ud800 \\u2192")', env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "\\ud800 \\u2192" in done.stdout


def test_numbers_lists_and_paths_as_output_parameters() -> None:
    import dataclasses

    @dataclasses.dataclass
    class Result:
        report_path: Path
        loss: float
        nodes: list[str]
        image: str | None

    assert as_text(Result(Path("/a b"), 0.5, ["n1"], None)) == {
        "report-path": "/a b",
        "loss": "0.5",
        "nodes": '["n1"]',
        "image": "null",
    }


def test_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "file.txt"
    files.write_text(file, "old")
    with pytest.raises(RuntimeError), files.replacing(file) as new:
        new.write(b"half of the n")
        raise RuntimeError
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file], "a temporary file remains"


def test_threads_can_write_the_same_file(tmp_path: Path) -> None:
    file = tmp_path / "progress"
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for _ in range(50):
                files.write_text(file, str(number) * 100)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(set(file.read_text())) == 1
    assert list(tmp_path.iterdir()) == [file]


def test_progress_file_has_the_format_of_argo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARGO_PROGRESS_FILE", str(tmp_path / "progress"))
    progress.report(3, 8, "step 3 of 8")
    assert (tmp_path / "progress").read_text() == "3/8\n"
    progress.report(9, 8)
    assert (tmp_path / "progress").read_text() == "8/8\n"
    assert capsys.readouterr().out == "step 3 of 8\n"


def test_unwritable_progress_file_does_not_fail_the_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ARGO_PROGRESS_FILE", str(tmp_path / "file" / "progress"))
    progress.report(1, 2)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "from steps.runtime.errors import BadInput; raise BadInput('no rows\\nin a.parquet', 'add rows')",
            "no rows in a.parquet\nfix: add rows",
        ),
        ("import no_such_module", "greet needs no_such_module, which is not installed\nfix: install argotune with"),
        ("raise KeyError('x')", "unexpected KeyError at greet.py:"),
        ("raise OSError(28, 'No space left on device', '/work')", "no space left on /work\nfix: free space"),
        ("raise OSError(30, 'x', '/work/a')", "read-only file system: /work/a\nfix: make it writable"),
        ("raise OSError(5, 'x')", "input/output error: the work volume\nfix: check the disk"),
        ("raise PermissionError(13, 'x', '/work/a')", "permission denied: /work/a\nfix: let this user"),
        ("raise PermissionError(13, 'x')", "unexpected PermissionError at greet.py:"),
        ("raise ValueError('I/O error: Read-only file system (os error 30)')", "read-only file system: the work"),
        ("raise KeyboardInterrupt", "cancelled"),
        (
            "raise RuntimeError('https://host/a?token=abcdefghijkl: ' + 'é' * 5000)",
            "unexpected RuntimeError at greet.py:",
        ),
    ],
)
def test_failure_is_written_as_termination_message(greet: Greet, tmp_path: Path, body: str, expected: str) -> None:
    file = tmp_path / "termination-log"
    file.write_text("earlier attempt")
    assert greet(body=body, env={termination.FILE_VARIABLE: str(file)}).returncode
    content = file.read_bytes()
    assert content.decode().startswith(expected)
    assert len(content) <= termination.MAX_BYTES and content.count(b"\n") <= 1
    assert b"abcdefghijkl" not in content


def test_invalid_flags_are_written_as_termination_message(greet: Greet, tmp_path: Path) -> None:
    file = tmp_path / "termination-log"
    file.touch()
    assert greet("--colour", "red", env={termination.FILE_VARIABLE: str(file)}).returncode == 2
    message, fix = termination.parse(file.read_text())
    assert "--colour: unknown flag" in message and fix == "run python -m steps.greet --help"


def test_no_termination_message_after_success_or_without_file(greet: Greet, tmp_path: Path) -> None:
    file = tmp_path / "termination-log"
    failed = greet(body="raise KeyError('x')", env={termination.FILE_VARIABLE: str(file)})
    assert failed.returncode == 1 and "Traceback" not in failed.stderr and not file.exists()
    file.touch()
    assert greet(env={termination.FILE_VARIABLE: str(file)}).returncode == 0
    assert file.read_text() == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Error (exit code 2): no rows\nfix: add rows", ("no rows", "add rows")),
        ("main: Error (exit code 1): no rows", ("no rows", "")),
        ("OOMKilled (exit code 137)", ("OOMKilled (exit code 137)", "")),
        ("Error (exit code 64)", ("Error (exit code 64)", "")),
        ("no rows\nfix: add rows", ("no rows", "add rows")),
    ],
)
def test_exit_code_is_removed_from_the_message_of_a_node(text: str, expected: tuple[str, str]) -> None:
    assert termination.parse(text) == expected
