"""``argotune completion``: prints the completion script of a shell."""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "fish")
EXAMPLES = """Examples:
  # bash, for this shell and for all
  source <(argotune completion bash)
  argotune completion bash > ~/.local/share/bash-completion/completions/argotune
  # zsh: a folder of $fpath
  argotune completion zsh > ~/.zfunc/_argotune
  # fish
  argotune completion fish > ~/.config/fish/completions/argotune.fish
"""
FILES = ("FILE", "DIRECTORY", "PATH")
"""Metavariables whose values are names of files."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``argotune completion``."""
    parser.epilog = EXAMPLES
    parser.add_argument("shell", choices=SHELLS, help="Shell to complete in")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from workflows import cli

    parser = cli.full_parser()
    for action in _actions(parser):
        if action.metavar in FILES and not action.choices:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, args.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the actions of a parser and of its commands."""
    found: list[argparse.Action] = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):
                found += _actions(command)
    return found
