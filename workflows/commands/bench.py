"""``argotune bench``: measures a served model with vLLM's benchmark client, and records the result with its run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflows.commands import chat, where
from workflows.commands.argument_types import count
from workflows.errors import InvalidInput, Problem, from_step_error

if TYPE_CHECKING:
    from steps.serving.benchmark import Load
    from steps.serving.benchmark_result import Benchmark
    from workflows.cluster.workflows_api import Workflows
    from workflows.runner.local_runs import LocalRun

EXAMPLES = """Examples:
  # Measure the adapter that a local run serves
  argotune bench oncall
  # Measure the adapter that a cluster serves, through the API server
  argotune bench oncall --cluster -n argotune
  # 500 requests, 32 at a time, with short prompts
  argotune bench oncall --requests 500 --concurrency 32 --input-tokens 200

The client is the vLLM of this machine (or $ARGOTUNE_VLLM): vllm bench serve with random prompts. The result is in
'argotune status NAME', in its JSON (performance.metrics), and in the report of a local run. On a cluster it is an
annotation of the Workflow; it includes the connection through the API server.
"""


@dataclass(frozen=True)
class _Target:
    """A served model."""

    endpoint: str
    base: Mapping[str, Any]
    """Settings of the rollout: ``preset``, ``model`` and ``revision`` of the base model."""
    api_keys: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune bench``."""
    parser.epilog = EXAMPLES
    parser.add_argument("name", metavar="NAME", help="Name or folder of a run, name of a Workspace, or @latest")
    parser.add_argument("--requests", type=count, default=100, help="Number of requests (default: 100)")
    parser.add_argument("--concurrency", type=count, default=8, help="Requests at a time (default: 8)")
    text = "Tokens of a prompt (default: 2048 as KAITO, at most half the context)"
    parser.add_argument("--input-tokens", type=count, metavar="COUNT", help=text)
    text = "Tokens of an answer (default: 256 as KAITO, at most a quarter of the context)"
    parser.add_argument("--output-tokens", type=count, metavar="COUNT", help=text)
    parser.add_argument("--model", help="Name of a served model (default: the adapter)")
    text = "Folder with the tokenizer of the base model (default: that of the run, or of the hub)"
    parser.add_argument("--tokenizer", type=Path, metavar="FOLDER", help=text)
    text = "File with an API key (default: $ARGOTUNE_API_KEY, or the keys that the run serves with)"
    parser.add_argument("--api-key-file", metavar="FILE", type=Path, help=text)
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text", help="Output (default: text)")
    parser.add_argument("--cluster", action="store_true", help="Only runs on a cluster (implied by -n)")
    text = "Namespace of a run on a cluster (default: $ARGO_NAMESPACE, the site profile's, or the context's)"
    parser.add_argument("-n", "--namespace", help=text)
    where.add_runs_dir(parser)
    parser.set_defaults(context=None, kubeconfig=None)


def run(args: argparse.Namespace) -> int:
    """Measure and record; print the result.

    Raises:
        InvalidInput: the run does not exist, serves nothing, or a flag does not fit its model.
        ArgotuneError: there is no client, or no request was answered.
    """
    from steps.runtime.errors import StepError
    from workflows.cluster import lookup

    try:
        if local := where.find_local(args):
            with contextlib.nullcontext(_local_target(local)) as target:
                result = _measure(target, args)
            _record_locally(local, result)
        else:
            api = where.connect_to_other(args)
            status = lookup.find_run(api, args.name)
            with _cluster_target(api, status.name, status.workspace) as target:
                result = _measure(target, args)
            _record_on_cluster(api, status.name, result)
    except StepError as error:
        raise from_step_error(error) from None
    if result.failed:
        print(f"warning: {result.failed} of {args.requests} requests failed", file=sys.stderr)
    print(json.dumps(result.metrics, indent=2) if args.output == "json" else f"benchmark: {result}")
    return 0


def _measure(target: _Target, args: argparse.Namespace) -> Benchmark:
    from steps.models.model import fetch_tokenizer_folder
    from steps.serving import benchmark, serving_client

    key = chat.read_api_key(args, target.api_keys)
    models = serving_client.list_models(target.endpoint, api_key=key)
    model = chat.select_model(args.model, models)
    load = _load(args, serving_client.get_context(target.endpoint, api_key=key))
    base = {name: str(target.base.get(name) or "") for name in ("preset", "model", "revision")}
    if not args.tokenizer and base["model"].startswith("/") and not Path(base["model"]).is_dir():
        fix = "pass --tokenizer FOLDER with the files of its tokenizer"
        raise InvalidInput(Problem(f"the base model {base['model']} is not on this machine", "--tokenizer", fix=fix))
    tokenizer = args.tokenizer or fetch_tokenizer_folder(**base)
    shape = f"{load.input_tokens} prompt tokens and {load.output_tokens} answer tokens"
    print(f"sending {load.requests} requests of {shape} to {model}", file=sys.stderr)
    return benchmark.measure(target.endpoint, model, tokenizer.absolute(), load, key)


def _load(args: argparse.Namespace, context: int) -> Load:
    """Return the requests: KAITO's where the context (0: unknown) has space for them."""
    from steps.serving import benchmark

    defaults = (benchmark.INPUT_TOKENS, benchmark.OUTPUT_TOKENS)
    if context:
        defaults = (min(defaults[0], context // 2), min(defaults[1], context // 4))
    load = benchmark.Load(
        args.requests, args.concurrency, args.input_tokens or defaults[0], args.output_tokens or defaults[1]
    )
    if context and load.input_tokens + load.output_tokens > context:
        message = f"{load.input_tokens} + {load.output_tokens} tokens exceed the model's context ({context})"
        raise InvalidInput(Problem(message, "--input-tokens", fix="decrease --input-tokens or --output-tokens"))
    return load


def _local_target(found: LocalRun) -> _Target:
    """Return the server of a local run."""
    from steps.runtime import entrypoint
    from steps.serving import server

    running = server.read(found.work / "serve" / server.RECORD)
    if running is None or not server.is_alive(running):
        fix = "start its server again: argotune run FILE --resume, or run it with an inference section"
        raise InvalidInput(Problem(f"{found.status.name} serves no model", fix=fix))
    base: Mapping[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        base = dict(json.loads(entrypoint.result_file(found.work, "rollout").read_text())["settings"])
    return _Target(running.endpoint, base, running.api_keys)


@contextlib.contextmanager
def _cluster_target(api: Workflows, name: str, service: str) -> Iterator[_Target]:
    """Yield the server of a run on a cluster, forwarded to this machine."""
    from workflows.commands import port_forward

    base = _rollout_flags(api.get(name))
    with port_forward.reach(service or name, api.namespace) as endpoint:
        yield _Target(endpoint, base)


def _rollout_flags(workflow: Mapping[str, Any]) -> dict[str, str]:
    """Return the flags of the step rollout in a compiled Workflow: those that are literal."""
    spec = (workflow.get("status") or {}).get("storedWorkflowTemplateSpec") or workflow.get("spec") or {}
    for template in spec.get("templates") or []:
        container = template.get("container") or {}
        words = [str(word) for word in [*(container.get("command") or []), *(container.get("args") or [])]]
        if "steps.rollout" in words:
            pairs = itertools.pairwise(words)
            return {word[2:]: value for word, value in pairs if word.startswith("--") and "{{" not in value}
    return {}


def _record_locally(found: LocalRun, result: Benchmark) -> None:
    """Write the result into the work folder, and the report again with it."""
    from steps.report import step as report
    from steps.runtime import files
    from steps.serving import benchmark_result

    files.write_json(found.work / benchmark_result.FILE, dataclasses.asdict(result))
    path = report.rewrite(found.work)
    if path is None:
        print(f"note: {found.status.name} has no report that can be extended by the result", file=sys.stderr)
        return
    print(f"report: {path}", file=sys.stderr)


def _record_on_cluster(api: Workflows, name: str, result: Benchmark) -> None:
    """Annotate the Workflow with the result; a missing permission is a warning."""
    from workflows.cluster.failures import ApiFailure
    from workflows.cluster.kubernetes_api import KubernetesWorkflows
    from workflows.runs.status import BENCHMARK

    if not isinstance(api, KubernetesWorkflows):
        print("warning: not recorded: an Argo server does not annotate Workflows", file=sys.stderr)
        return
    try:
        api.annotate(name, {BENCHMARK: json.dumps(dataclasses.asdict(result))})
    except ApiFailure as failure:
        print(f"warning: not recorded: {failure.message}\n    fix: {failure.fix}", file=sys.stderr)
