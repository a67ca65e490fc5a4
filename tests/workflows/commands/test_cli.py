"""The command line: exit codes, errors for people, and what it imports before anything is asked of it."""

import subprocess
import sys

import pytest

from workflows import cli, errors


def test_help_lists_every_verb_and_the_exit_codes(argotune):
    shown = argotune("--help")
    assert shown.returncode == 0
    assert all(verb in shown.stdout for verb in cli.COMMANDS)
    assert "3 gate said no" in " ".join(shown.stdout.split())


@pytest.mark.parametrize("verb", cli.COMMANDS)
def test_every_verb_has_help(argotune, verb):
    shown = argotune(verb, "--help")
    assert shown.returncode == 0, shown.stderr
    assert verb in shown.stdout


def test_an_unknown_verb_is_bad_input(argotune):
    assert argotune("conquer").returncode == 2


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.InvalidInput(errors.Problem("is wrong", "a.b", "f.yaml", 3, "mend it")), 2, "f.yaml:3: a.b: is wrong"),
        (errors.GateFailed("no"), 3, "error: no"),
        (errors.ArgotuneError("broke"), 1, "error: broke"),
        (KeyboardInterrupt(), 5, "cancelled"),
        (ZeroDivisionError("oops"), 1, "unexpected ZeroDivisionError: oops"),
    ],
)
def test_errors_become_messages_and_exit_codes(error, code, text, monkeypatch, capsys):
    from workflows.commands import validate

    def fail(_):
        raise error

    monkeypatch.setattr(validate, "run", fail)
    assert cli.main(["validate", "x.yaml"]) == code
    shown = capsys.readouterr().err
    assert text in shown
    assert "Traceback" not in shown


def test_debug_shows_the_traceback(monkeypatch, capsys):
    from workflows.commands import validate

    monkeypatch.setattr(validate, "run", lambda _: 1 / 0)
    assert cli.main(["validate", "x.yaml", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error_to_complain_about():
    command = f"{sys.executable} -m workflows.cli presets ls | head -1"
    shown = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert shown.stderr == ""
