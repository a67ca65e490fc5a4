"""``argotune schema``: prints the JSON Schema of a Workspace."""

from __future__ import annotations

import argparse

EXAMPLES = """\
Examples:
  # Let editors complete and check a Workspace, by a comment on its first line
  argotune schema > workspace.schema.json
  # yaml-language-server: $schema=workspace.schema.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune schema``."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def run(args: argparse.Namespace) -> int:
    """Print the schema."""
    print(text(), end="")
    return 0


def text() -> str:
    """Return the schema as JSON."""
    import json

    from workflows.spec.schema import json_schema

    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
