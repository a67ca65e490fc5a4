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
class Greeted:
    text: str
    file: Path
    letters: int
    polite: bool = True


def greet(given: Greeting) -> Greeted:
    with (given.work / "calls").open("a") as calls:
        calls.write("x")
    MISBEHAVE
    text = " ".join(given.words * given.times)
    (given.work / "greeting.txt").write_text(text)
    return Greeted(text, given.work / "greeting.txt", len(text))


def outputs_intact(given: Greeting, result: Greeted) -> bool:
    return Path(result.file).read_text() == result.text


if __name__ == "__main__":
    main(Greeting, greet, outputs_intact=outputs_intact, result_type=Greeted)
'''

Greet = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def greet(tmp_path: Path) -> Greet:
    (tmp_path / "work").mkdir()

    def start(
        *flags: str, misbehave: str = "pass", env: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        program = tmp_path / "greet.py"
        program.write_text(PROGRAM.replace("MISBEHAVE", textwrap.indent(misbehave, "    ").strip()))
        work = ("--work", str(tmp_path / "work"))
        words = ("--words", '["hello","you"]')
        command = [sys.executable, str(program), *(flags or (*work, *words))]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False)

    return start


def calls(tmp_path: Path) -> int:
    return len((tmp_path / "work" / "calls").read_text())


def test_every_wrong_flag_is_told_at_once(greet: Greet) -> None:
    done = greet(
        "--words", "[not json", "--times", "many", "--options", '{"a": "b"}', "--colour", "red", "--times", "2"
    )
    assert done.returncode == 2
    message = done.stderr
    assert "--words: not JSON" in message
    assert "--words: Field required" not in message, "a value that can't be read is not a missing one"
    assert "--times: Input should be a valid integer" in message
    assert "--times: given twice" in message
    assert "--options.a: Input should be a valid integer" in message
    assert "--colour: unknown flag" in message
    assert "--work: " in message
    assert "fix: see python -m steps.greet --help" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--work"], "--work: needs a value"),
        (["--work", "--times", "2"], "--work: needs a value"),
        (["work", "--times", "2"], "work: unknown flag"),
        (["--tim", "2"], "--tim: unknown flag"),
    ],
)
def test_a_flag_is_never_guessed(greet: Greet, flags: list[str], message: str) -> None:
    done = greet(*flags)
    assert done.returncode == 2
    assert message in done.stderr


def test_text_may_begin_with_a_dash_and_hold_anything() -> None:
    class Question(Options):
        question: str
        image: str = "none"
        limit: float = 1.0

    parsed = parse(Question, ["--question", "--why? a=b", "--image", "", "--limit=-2e-4"])
    assert (parsed.question, parsed.image, parsed.limit) == ("--why? a=b", "", -2e-4)


def test_a_map_that_may_be_absent_is_json_too() -> None:
    class Optional(Options):
        rows: dict[str, Any] | None = None

    assert parse(Optional, ["--rows", '{"a": [1]}']).rows == {"a": [1]}
    with pytest.raises(BadInput, match="--rows: not JSON"):
        parse(Optional, ["--rows", "{'a': 1}"])


def test_help_shows_what_each_field_is_for(greet: Greet) -> None:
    done = greet("--help")
    assert done.returncode == 0
    assert "--model-config" in done.stdout
    assert "Text to print, 100% of it." in done.stdout


def test_results_become_output_parameters_and_are_kept(greet: Greet, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    done = greet(env={"ARGOTUNE_OUTPUTS": str(outputs)})
    assert done.returncode == 0, done.stderr
    assert {file.name: file.read_text() for file in outputs.iterdir()} == {
        "text": "hello you",
        "file": str(tmp_path / "work" / "greeting.txt"),
        "letters": "9",
        "polite": "true",
    }
    kept = json.loads(result_file(tmp_path / "work", "greet").read_text())
    assert kept["step"] == "greet"
    assert kept["settings"]["words"] == ["hello", "you"]
    assert kept["result"]["letters"] == 9
    assert kept["seconds"] >= 0
    assert kept["started"].endswith("+00:00")


def test_finished_work_is_not_done_again(greet: Greet, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    greet()
    again = greet(env={"ARGOTUNE_OUTPUTS": str(outputs)})
    assert again.returncode == 0, again.stderr
    assert "already done" in again.stdout
    assert calls(tmp_path) == 1
    assert (outputs / "text").read_text() == "hello you", "a kept result is published as a new one is"


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"result": 3}', '{"step": "greet", "settings":'])
def test_work_whose_record_is_damaged_is_done_again(greet: Greet, tmp_path: Path, content: str | None) -> None:
    greet()
    record = result_file(tmp_path / "work", "greet")
    if content is None:
        record.unlink()
    else:
        record.write_text(content)
    assert greet().returncode == 0
    assert calls(tmp_path) == 2
    assert json.loads(record.read_text())["result"]["letters"] == 9


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_work_whose_files_are_damaged_is_done_again(greet: Greet, tmp_path: Path, damage: str) -> None:
    greet()
    made = tmp_path / "work" / "greeting.txt"
    made.unlink() if damage == "gone" else made.write_text("hel")
    assert greet().returncode == 0
    assert calls(tmp_path) == 2
    assert made.read_text() == "hello you"


def test_other_settings_mean_other_work(greet: Greet, tmp_path: Path) -> None:
    greet()
    greet("--work", str(tmp_path / "work"), "--words", '["bye"]')
    assert calls(tmp_path) == 2
    assert (tmp_path / "work" / "greeting.txt").read_text() == "bye"


FULL = 'open("/dev/full", "w", buffering=1).write("no room\\n")'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize(
    "misbehave",
    [
        FULL,
        f'try:\n    {FULL}\nexcept OSError as error:\n    raise RuntimeError("save failed") from error',
        'raise ValueError("I/O error: No space left on device (os error 28)")',
    ],
    ids=["plain", "wrapped", "safetensors"],
)
def test_a_full_disk_is_the_users_to_mend(greet: Greet, misbehave: str) -> None:
    done = greet(misbehave=misbehave)
    assert done.returncode == 2, done.stderr
    assert "no space left" in done.stderr
    assert "fix: free space there" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("misbehave", "code", "message"),
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
def test_failures_have_a_code_and_no_traceback(greet: Greet, misbehave: str, code: int, message: str) -> None:
    done = greet(misbehave=misbehave)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_traceback_is_there_for_who_asks(greet: Greet) -> None:
    done = greet(misbehave="1 / 0", env={"ARGOTUNE_DEBUG": "1"})
    assert "Traceback" in done.stderr


def test_text_that_no_terminal_can_show_ends_no_step(greet: Greet, tmp_path: Path) -> None:
    done = greet(misbehave='print("\\ud800 \\u2192")', env={"PYTHONIOENCODING": "ascii"})
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


def test_a_file_is_whole_or_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "file.txt"
    files.write_text(file, "old")
    with pytest.raises(RuntimeError), files.replacing(file) as new:
        new.write(b"half of the n")
        raise RuntimeError
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file], "nothing is left behind"


def test_threads_may_write_the_same_file(tmp_path: Path) -> None:
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


def test_progress_is_what_argo_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARGO_PROGRESS_FILE", str(tmp_path / "progress"))
    progress.report(3, 8, "step 3 of 8")
    assert (tmp_path / "progress").read_text() == "3/8\n"
    progress.report(9, 8)
    assert (tmp_path / "progress").read_text() == "8/8\n"
    assert capsys.readouterr().out == "step 3 of 8\n"


def test_a_step_goes_on_where_progress_cannot_be_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ARGO_PROGRESS_FILE", str(tmp_path / "file" / "progress"))
    progress.report(1, 2)


@pytest.mark.parametrize(
    ("misbehave", "expected"),
    [
        (
            "from steps.runtime.errors import BadInput; raise BadInput('no rows\\nin a.parquet', 'add rows')",
            "no rows in a.parquet\nfix: add rows",
        ),
        ("import no_such_module", "greet needs no_such_module, which is not installed\nfix: install argotune with"),
        ("raise KeyError('x')", "unexpected KeyError at greet.py:"),
        ("raise OSError(28, 'No space left on device', '/work')", "no space left on /work\nfix: free space"),
        ("raise KeyboardInterrupt", "cancelled"),
        (
            "raise RuntimeError('https://host/a?token=abcdefghijkl: ' + 'é' * 5000)",
            "unexpected RuntimeError at greet.py:",
        ),
    ],
)
def test_a_failure_is_the_termination_message(greet: Greet, tmp_path: Path, misbehave: str, expected: str) -> None:
    file = tmp_path / "termination-log"
    file.write_text("of an earlier attempt")
    assert greet(misbehave=misbehave, env={termination.FILE_VARIABLE: str(file)}).returncode
    content = file.read_bytes()
    assert content.decode().startswith(expected)
    assert len(content) <= termination.MAX_BYTES and content.count(b"\n") <= 1
    assert b"abcdefghijkl" not in content


def test_wrong_flags_are_the_termination_message(greet: Greet, tmp_path: Path) -> None:
    file = tmp_path / "termination-log"
    file.touch()
    assert greet("--colour", "red", env={termination.FILE_VARIABLE: str(file)}).returncode == 2
    message, fix = termination.parse(file.read_text())
    assert "--colour: unknown flag" in message and fix == "see python -m steps.greet --help"


def test_a_success_and_a_missing_file_write_no_termination_message(greet: Greet, tmp_path: Path) -> None:
    file = tmp_path / "termination-log"
    failed = greet(misbehave="raise KeyError('x')", env={termination.FILE_VARIABLE: str(file)})
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
def test_the_message_of_a_node_is_read_without_its_exit_code(text: str, expected: tuple[str, str]) -> None:
    assert termination.parse(text) == expected
