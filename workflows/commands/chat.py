"""``argotune chat``: sends a question to the adapter that a local run or a cluster serves."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from steps.runtime import terminal
from workflows.commands import stop
from workflows.errors import ArgotuneError, InvalidInput, Problem

EXAMPLES = """Examples:
  # Ask the adapter
  argotune chat "What can you do?"
  # Ask the adapter that a cluster serves (the name of its Workspace), through the API server
  argotune chat --cluster oncall -n argotune "What can you do?"
  # Ask the base model
  argotune chat --model smollm2-135m-instruct "What can you do?"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune chat``."""
    parser.epilog = EXAMPLES
    parser.add_argument("question", help="Question, or - to read it from standard input")
    parser.add_argument("--run", metavar="RUN", help="Name or folder of a run (default: the only served run)")
    parser.add_argument("--cluster", metavar="SERVICE", help="Ask the model of a service on the cluster")
    text = "Namespace of the service (default: $ARGO_NAMESPACE, the site profile's, or the context's)"
    parser.add_argument("-n", "--namespace", default="", help=text)
    parser.add_argument("--model", help="Name of a served model (default: the adapter)")
    parser.add_argument("--max-tokens", type=int, default=200, help="Maximum tokens of the answer (default: 200)")
    stop.add_runs_dir(parser)


def run(args: argparse.Namespace) -> int:
    """Print the answer.

    Raises:
        InvalidInput: no run or several runs are served, or the model is not served.
        ArgotuneError: the server did not answer.
    """
    question = sys.stdin.read() if args.question == "-" else args.question
    if not args.cluster:
        return _ask(*_local_server(args), question, args)
    if args.run:
        raise InvalidInput(Problem("--run cannot be combined with --cluster", fix="pass one of them"))
    from workflows.commands import port_forward

    with port_forward.reach(args.cluster, args.namespace) as address:
        from steps.serving import serving_client

        return _ask(address, serving_client.list_models(address, sleep=time.sleep), question, args)


def _local_server(args: argparse.Namespace) -> tuple[str, list[str]]:
    """Return address and models of the served run."""
    from steps.serving import server

    runs = Path(args.runs_dir)
    records = stop.records(stop.run_folder(runs, args.run) if args.run else None, runs)
    servers = {record: server.read(record) for record in records if record.name == server.RECORD}
    served = {record: item for record, item in servers.items() if item and server.is_alive(item)}
    if len(served) != 1:
        names = ", ".join(stop.run_of(record).name for record in served)
        message = f"several runs are served: {names}" if served else f"no run is served in {args.run or runs}"
        raise InvalidInput(Problem(message, fix="select one with --run" if served else "run argotune run FILE"))
    (running,) = served.values()
    return running.endpoint, list(running.models)


def _ask(address: str, models: list[str], question: str, args: argparse.Namespace) -> int:
    """Print the answer of a model, by default of the first adapter: the base model is the first of all."""
    from steps.runtime.errors import StepError
    from steps.serving import serving_client

    model = args.model or models[min(1, len(models) - 1)]
    if model not in models:
        fix = f"use one of {', '.join(models)}"
        raise InvalidInput(Problem(f"model {model!r} is not served", "--model", fix=fix))
    try:
        answer = serving_client.complete(address, model, question, args.max_tokens, timeout=600)
        print(terminal.escape(answer) if sys.stdout.isatty() else answer)
    except StepError as error:
        raise ArgotuneError(str(error)) from None
    return 0
