"""``argotune completion``: the scripts offer commands, flags and choices."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from workflows.cli import COMMANDS, main
from workflows.commands.completion import SHELLS

COMPLETE = """
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*"
_shtab_argotune
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def bash_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", "bash"]) == 0
    file = tmp_path / "argotune.bash"
    file.write_text(capsys.readouterr().out)
    return file


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["argotune", ""], set(COMMANDS)),
        (["argotune", "por"], {"port-forward"}),
        (["argotune", "submit", "--dry"], {"--dry-run"}),
        (["argotune", "submit", "--as", "cl"], {"cluster-template"}),
        (["argotune", "completion", ""], set(SHELLS)),
    ],
)
def test_bash_completes_commands_flags_and_choices(bash_script: Path, words: list[str], offered: set[str]):
    done = subprocess.run(["bash", "-c", COMPLETE, "bash", bash_script, *words], capture_output=True, text=True)
    assert offered <= set(done.stdout.split()), done.stderr


def test_bash_completes_files(bash_script: Path, tmp_path: Path):
    (tmp_path / "workspace.yaml").touch()
    command = ["bash", "-c", COMPLETE, "bash", bash_script, "argotune", "submit", "work"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "workspace.yaml" in done.stdout.split(), done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_has_all_commands_and_valid_syntax(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert not [name for name in COMMANDS if name not in text]
    if program := shutil.which(shell):
        (tmp_path / "script").write_text(text)
        checked = subprocess.run([program, "-n", tmp_path / "script"], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr


def test_an_unknown_shell_is_rejected(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "sh"])
    assert "invalid choice" in capsys.readouterr().err
