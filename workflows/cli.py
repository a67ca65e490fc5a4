"""The ``argotune`` command: runs a subcommand and turns errors into one message and an exit code.

Only the module of the requested subcommand is imported: ``--help`` and ``validate`` never load hera or torch.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from workflows import installation
from workflows.errors import ArgotuneError, Cancelled, InvalidInput
from workflows.version import VERSION

COMMANDS = {
    "init": "Write a first Workspace, from three answers",
    "validate": "Check Workspace files and report all errors",
    "schema": "Print the JSON Schema of a Workspace, for editors",
    "plan": "Show the settings of a run, their origins and the estimated cost",
    "doctor": "Check a cluster and argotune's installation on it",
    "preflight": "Check that data, model, registry and quota are available",
    "compile": "Print the Argo Workflow of a Workspace",
    "lint": "Check Argo Workflows, templates and CronWorkflows offline",
    "preview": "Preview formatted training rows and data warnings",
    "tune-bench": "Measure the tuning speed of this machine",
    "run": "Run a Workspace or a compiled Workflow locally",
    "submit": "Submit a Workspace to a cluster",
    "status": "Show the status of runs",
    "ls": "List runs",
    "logs": "Print the logs of a run",
    "report": "Open the report of a local run",
    "approve": "Approve or reject a suspended run",
    "stop": "Stop local runs and servers, or a run on a cluster",
    "promote": "Promote the canary to all traffic",
    "rollback": "Roll back to the previous release, or remove the canary",
    "gc": "List GPU nodes created by runs and delete orphaned ones",
    "chat": "Send a question to a served adapter",
    "bench": "Measure the speed of a served model",
    "port-forward": "Reach a model that a cluster serves from this machine",
    "presets": "List the models that can be tuned and served",
    "completion": "Print the completion script of a shell",
}
EXIT_CODES = "Exit codes: 0 ok, 1 failed, 2 bad input, 3 gate failed, 4 quota or capacity, 5 cancelled, 6 time limit"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code (see ``EXIT_CODES``)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser, subparsers = _parser()
    name = next((word for word in arguments if not word.startswith("-")), "")
    command = None
    if name in COMMANDS:
        command = importlib.import_module(module(name))
        command.add_arguments(subparsers[name])
    args = parser.parse_args(arguments)
    if command is None:
        parser.print_help()
        return 0
    try:
        installation.check()
    except ArgotuneError as error:  # without _print_error, which imports `steps`
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    try:
        return int(command.run(args))
    except InvalidInput as error:
        for problem in error.problems:
            _print_error(str(problem))
        return error.exit_code
    except ArgotuneError as error:
        _print_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        print("cancelled", file=sys.stderr)
        return Cancelled.exit_code
    except BrokenPipeError:
        # The reader (head, less) has exited. Without this, Python reports the error again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        from steps.runtime import storage_errors

        if storage_error := storage_errors.from_exception(error):
            _print_error(storage_error.message)
            print(f"    fix: {storage_error.fix}", file=sys.stderr)
            return 1
        _print_error(f"unexpected {type(error).__name__}: {error}")
        print("    fix: rerun with --debug and report the traceback", file=sys.stderr)
        return 1


def full_parser() -> argparse.ArgumentParser:
    """Return the parser with the flags of all commands, whose modules are imported."""
    parser, subparsers = _parser()
    for name, subparser in subparsers.items():
        importlib.import_module(module(name)).add_arguments(subparser)
    return parser


def module(command: str) -> str:
    """Return the module of a command."""
    return f"workflows.commands.{command.replace('-', '_')}"


def _print_error(message: str) -> None:
    from steps.runtime import terminal

    print(terminal.escape(f"error: {message}"), file=sys.stderr)


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="Show tracebacks")
    parser = argparse.ArgumentParser(
        prog="argotune",
        description="Fine-tune, package and serve LoRA adapters with Argo Workflows",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"argotune {VERSION}", help="Show the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    return parser, {
        name: commands.add_parser(
            name,
            help=text,
            description=text,
            parents=[shared],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for name, text in COMMANDS.items()
    }


if __name__ == "__main__":
    sys.exit(main())
