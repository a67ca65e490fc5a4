"""The ``argotune`` command: finds the verb, runs it, and turns errors into one clear message and an exit code.

Only the module of the verb that is asked for is imported, so that ``--help`` and ``validate`` feel instant.
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

COMMANDS = {
    "validate": "check Workspace files and report every problem at once",
    "plan": "show every setting of a run and where it comes from",
    "preflight": "ask from here what a run will need: data, model, registry, quota",
    "compile": "print the Argo Workflow of a Workspace, ready for 'argo submit -'",
    "lint": "check any Argo Workflow, template or CronWorkflow offline",
    "preview": "show rows of the data as the model would see them, and warn of what would spoil a training",
    "run": "run a Workspace, or a compiled Workflow, on this machine",
    "submit": "create the Workflow of a Workspace on a cluster, and see it through",
    "status": "show how runs on a cluster stand",
    "ls": "list the runs on a cluster",
    "logs": "show what the steps of a run on a cluster write",
    "approve": "answer the step of a run on a cluster that waits for a person",
    "stop": "stop the servers of runs on this machine, or a run on a cluster (--cluster)",
    "promote": "let the canary of a cluster's service take over",
    "rollback": "have what a cluster's service served before in service again, or end its canary",
    "gc": "list the GPU nodes that runs have made on a cluster, and delete what lost runs have left",
    "chat": "ask a served adapter a question",
    "presets": "list the models that can be tuned and served",
}
EXIT_CODES = "exit codes: 0 ok, 1 failed, 2 bad input, 3 gate said no, 4 quota or capacity, 5 cancelled, 6 time cap"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (see ``EXIT_CODES``)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser, subparsers = _parser()
    verb = next((word for word in arguments if not word.startswith("-")), "")
    command = None
    if verb in COMMANDS:
        command = importlib.import_module(f"workflows.commands.{verb}")
        command.add_arguments(subparsers[verb])
    args = parser.parse_args(arguments)
    if command is None:
        parser.print_help()
        return 0
    try:
        installation.check()
        return int(command.run(args))
    except InvalidInput as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return error.exit_code
    except ArgotuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("cancelled", file=sys.stderr)
        return Cancelled.exit_code
    except BrokenPipeError:
        # The reader (head, less) has gone. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        print(f"error: unexpected {type(error).__name__}: {error}", file=sys.stderr)
        print("    fix: run again with --debug for the traceback, and please report it", file=sys.stderr)
        return 1


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="show tracebacks")
    parser = argparse.ArgumentParser(
        prog="argotune",
        description="Fine-tune a model on your data, get an image of the adapter, serve it: as Argo Workflows.",
        epilog=EXIT_CODES,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    return parser, {
        verb: verbs.add_parser(
            verb,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            parents=[shared],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for verb, text in COMMANDS.items()
    }


if __name__ == "__main__":
    sys.exit(main())
