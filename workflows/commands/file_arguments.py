"""FILE and ``-f FILE`` of commands that read Workspaces."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

DESTINATION = "files"
HELP = "Workspace file (YAML) or directory of files, or - for standard input"


def add_files(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Declare FILE and ``-f FILE``, which can be repeated and combined, as ``files``; ``file``: all in one text.

    Args:
        parser: the parser of the command.
        optional: the command can do without a file.
    """
    count = "*" if optional else "+"
    parser.add_argument(DESTINATION, metavar="FILE", nargs=count, action=_AddFiles, help=HELP)
    text = "Workspace file or directory, as for kubectl; can be repeated"
    parser.add_argument("-f", "--filename", dest=DESTINATION, metavar="FILE", action=_AddFiles, help=text)
    parser.set_defaults(files=[], file="")


class _AddFiles(argparse.Action):
    """Action that adds files, in the order of the command line."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        if option:
            values = [values] if Path(values).exists() else [name for name in values.split(",") if name]
            for action in parser._actions:
                if action.dest == DESTINATION:
                    action.required = False  # argparse has no "at least one of both"
        namespace.files = [*namespace.files, *values]
        namespace.file = " ".join(namespace.files)
