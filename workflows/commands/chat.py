"""``argotune chat``: sends a question to the adapter that a local run serves."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from steps.runtime import terminal
from workflows.commands import stop
from workflows.errors import ArgotuneError, InvalidInput, Problem

EXAMPLES = """Examples:
  # Ask the adapter
  argotune chat "What can you do?"
  # Ask the base model
  argotune chat --model smollm2-135m-instruct "What can you do?"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune chat``."""
    parser.epilog = EXAMPLES
    parser.add_argument("question", help="Question, or - to read it from standard input")
    parser.add_argument("--run", metavar="RUN", help="Name or folder of a run (default: the only served run)")
    parser.add_argument("--model", help="Name of a served model (default: the adapter)")
    parser.add_argument("--max-tokens", type=int, default=200, help="Maximum tokens of the answer (default: 200)")
    stop.add_runs_dir(parser)


def run(args: argparse.Namespace) -> int:
    """Print the answer.

    Raises:
        InvalidInput: no run or several runs are served, or the model is not served.
        ArgotuneError: the server did not answer.
    """
    from steps.runtime.errors import StepError
    from steps.serving import server, serving_client

    runs = Path(args.runs_dir)
    records = stop.records(stop.run_folder(runs, args.run) if args.run else None, runs)
    servers = {record: server.read(record) for record in records if record.name == server.RECORD}
    served = {record: item for record, item in servers.items() if item and server.is_alive(item)}
    if len(served) != 1:
        names = ", ".join(stop.run_of(record).name for record in served)
        message = f"several runs are served: {names}" if served else f"no run is served in {args.run or runs}"
        raise InvalidInput(Problem(message, fix="select one with --run" if served else "run argotune run FILE"))
    (running,) = served.values()
    model = args.model or running.models[min(1, len(running.models) - 1)]
    if model not in running.models:
        models = ", ".join(running.models)
        raise InvalidInput(Problem(f"model {model!r} is not served", "--model", fix=f"use one of {models}"))
    question = sys.stdin.read() if args.question == "-" else args.question
    try:
        answer = serving_client.complete(running.endpoint, model, question, args.max_tokens, timeout=600)
        print(terminal.escape(answer) if sys.stdout.isatty() else answer)
    except StepError as error:
        raise ArgotuneError(str(error)) from None
    return 0
