"""``argotune preview``: downloads the rows of a Workspace and shows how they are formatted for training."""

from __future__ import annotations

import argparse
import tempfile

EXAMPLES = """Examples:
  # Show three rows, with the trained tokens in angle quotes, and warnings
  argotune preview workspace.yaml
  # Show more rows
  argotune preview workspace.yaml --rows 10
  # Read the rows of a volume from a local folder
  argotune preview workspace.yaml --source rows/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune preview``."""
    from workflows.commands import compile as compiling
    from workflows.commands import local_steps

    parser.epilog = EXAMPLES
    compiling.add_arguments(parser, output=False)
    parser.add_argument("--rows", type=int, default=3, help="Number of rows (default: 3)")
    local_steps.add_row_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the download step in a temporary folder, then the preview step; return its exit code.

    Raises:
        InvalidInput: the Workspace has no tuning, or its rows are on a volume and ``--source`` is missing.
    """
    from workflows.commands import local_steps
    from workflows.commands.local_steps import download_settings, run_step
    from workflows.compile import settings

    plan = local_steps.load_tuning_plan(args)
    download, preview = download_settings(plan, args), settings.preview(plan, args.rows)
    preview = preview.model_copy(update={"model": local_steps.local_model(plan)})
    with tempfile.TemporaryDirectory(prefix="argotune-preview-") as folder:
        environment = local_steps.model_environment(plan)
        return run_step("download", download, folder) or run_step("preview", preview, folder, environment)
