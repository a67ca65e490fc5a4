"""``argotune chat``: sends a question to the adapter that a local run or a cluster serves."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from steps.runtime import terminal
from workflows.commands import stop, where
from workflows.errors import ArgotuneError, InvalidInput, Problem

if TYPE_CHECKING:
    from steps.serving.server import Server

EXAMPLES = """Examples:
  # Ask the adapter
  argotune chat "What can you do?"
  # Ask the adapter that a cluster serves (the name of its Workspace), through the API server
  argotune chat --cluster oncall -n argotune "What can you do?"
  # Ask the base model
  argotune chat --model smollm2-135m-instruct "What can you do?"
  # Use the API key of a client
  argotune chat --api-key-file keys/alice "What can you do?"
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
    text = "File with an API key (default: $ARGOTUNE_API_KEY, or the keys that the run serves with)"
    parser.add_argument("--api-key-file", metavar="FILE", type=Path, help=text)
    parser.add_argument("--max-tokens", type=int, default=200, help="Maximum tokens of the answer (default: 200)")
    where.add_runs_dir(parser)


def run(args: argparse.Namespace) -> int:
    """Print the answer.

    Raises:
        InvalidInput: no run or several runs are served, or the model is not served.
        ArgotuneError: the server did not answer.
    """
    question = sys.stdin.read() if args.question == "-" else args.question
    if not args.cluster:
        running = _local_server(args)
        return _ask(running.endpoint, running.models, question, args, read_api_key(args, running.api_keys))
    if args.run:
        raise InvalidInput(Problem("--run cannot be combined with --cluster", fix="pass one of them"))
    from workflows.commands import port_forward

    with port_forward.reach(args.cluster, args.namespace) as address:
        from steps.serving import serving_client

        key = read_api_key(args)
        models = serving_client.list_models(address, sleep=time.sleep, api_key=key)
        return _ask(address, models, question, args, key)


def _local_server(args: argparse.Namespace) -> Server:
    """Return the server of the served run."""
    from steps.serving import server

    runs = Path(args.runs_dir)
    records = stop.records(stop.run_folder(runs, args.run) if args.run else None, runs)
    servers = {record: server.read(record) for record in records if record.name == server.RECORD}
    served = {record: item for record, item in servers.items() if item and server.is_alive(item)}
    if len(served) != 1:
        names = ", ".join(stop.run_of(record).name for record in served)
        message = (
            f"several runs are served: {names}" if served else f"no run is served in {args.run or where.show(runs)}"
        )
        fix = "select one with --run" if served else f"run argotune run FILE; or {where.OTHER_FOLDER}"
        raise InvalidInput(Problem(message, fix=fix))
    (running,) = served.values()
    return running


def select_model(name: str | None, models: list[str]) -> str:
    """Return a served model, by default the first adapter: the base model is the first of all.

    Raises:
        InvalidInput: the model is not served.
    """
    model = name or models[min(1, len(models) - 1)]
    if model not in models:
        fix = f"use one of {', '.join(models)}"
        raise InvalidInput(Problem(f"model {model!r} is not served", "--model", fix=fix))
    return model


def _ask(address: str, models: list[str], question: str, args: argparse.Namespace, key: str) -> int:
    """Print the answer of a model."""
    from steps.runtime.errors import StepError
    from steps.serving import serving_client

    model = select_model(args.model, models)
    try:
        answer = serving_client.complete(address, model, question, args.max_tokens, timeout=600, api_key=key)
        print(terminal.escape(answer) if sys.stdout.isatty() else answer)
    except StepError as error:
        raise ArgotuneError(str(error)) from None
    return 0


def read_api_key(args: argparse.Namespace, folder: str = "") -> str:
    """Return the key of ``--api-key-file``, of the environment, or of a run's folder of keys."""
    from steps.serving import api_keys

    if args.api_key_file:
        try:
            return api_keys.read_key_file(args.api_key_file)
        except (OSError, ValueError) as error:
            message = f"no API key in {args.api_key_file}: {getattr(error, 'strerror', None) or error}"
            raise InvalidInput(Problem(message, "--api-key-file", fix="pass a file with one key")) from None
    return os.environ.get(api_keys.CLIENT_VARIABLE, "") or api_keys.read_client_key(folder)
