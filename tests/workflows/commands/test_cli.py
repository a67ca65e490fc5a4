"""The command line: help, version, exit codes and error messages."""

import argparse
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from workflows import cli, errors
from workflows.plan.model import Images
from workflows.version import VERSION


def test_help_lists_every_command_and_the_exit_codes(argotune):
    shown = argotune("--help")
    assert shown.returncode == 0
    assert all(name in shown.stdout for name in cli.COMMANDS)
    assert "3 gate failed" in " ".join(shown.stdout.split())


def test_help_and_version_import_nothing_heavy():
    code = """import sys
from workflows import cli
try:
    cli.main([sys.argv[1]])
except SystemExit:
    pass
print(sorted({"hera", "torch", "kubernetes", "azure", "pydantic", "yaml"} & set(sys.modules)))"""
    for flag in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code, flag], capture_output=True, text=True, timeout=300)
        assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_the_command_and_its_images_have_one_version(argotune):
    assert argotune("--version").stdout == f"argotune {VERSION}\n"
    assert all(image.endswith(f":{VERSION}") for image in Images().model_dump().values())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(argotune, name):
    shown = argotune(name, "--help")
    assert shown.returncode == 0, shown.stderr
    assert name in shown.stdout


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_texts_have_one_style(name):
    texts = [cli.COMMANDS[name], *_help_texts(name)]
    assert [text for text in texts if not re.fullmatch(r"[A-Z][^\n]*[^.\n]", text)] == []
    assert [text for text in texts if len(text.partition(" (default")[0]) >= 70] == []


def _help_texts(name: str) -> Iterator[str]:
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(cli.module(name)).add_arguments(parser)
    parsers = [parser]
    while parsers:
        for action in parsers.pop()._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from (choice.help or "" for choice in action._choices_actions)
                parsers += action.choices.values()
            elif not isinstance(action, argparse._HelpAction):
                yield action.help or ""


def test_an_unknown_command_is_bad_input(argotune):
    assert argotune("conquer").returncode == 2


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.InvalidInput(errors.Problem("is wrong", "a.b", "f.yaml", 3, "fix it")), 2, "f.yaml:3: a.b: is wrong"),
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


def test_a_closed_pipe_prints_no_error():
    command = f"{sys.executable} -m workflows.cli presets ls | head -1"
    shown = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=300)
    assert shown.stderr == ""
