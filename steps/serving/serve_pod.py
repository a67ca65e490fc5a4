"""Start the server of a pod: fetch its base model and adapters, then replace this process by the server.

On several nodes (`--nodes`), this process remains, and ends vLLM if another node is lost (``node_group``).

    python -m steps.serving.serve_pod --model microsoft/phi-4 --server-arguments '{"max-model-len": 8192}'

The file ``$ARGOTUNE_ADAPTERS`` lists the adapters. ``adapter_reloader`` loads them once the server is up and whenever
the file changes. They are pulled here too, so that a missing adapter fails early, and a base model without a chat
template gets that of its adapter.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import Field

from steps.models import adapter_compat
from steps.runtime import files
from steps.runtime.entrypoint import parse
from steps.runtime.errors import BadInput, StepError
from steps.runtime.options import Options
from steps.serving import api_keys, desired_adapters, group_environment, group_flags, node_group, server_command
from steps.serving.adapter_fetch import fetch_adapter
from steps.serving.desired_adapters import DesiredAdapter
from steps.serving.node_group import Member
from steps.serving.server_command import served_name


class Settings(Options):
    """Serve a base model and the adapters listed in a file."""

    preset: str = ""
    """Name that the base model is served under; empty: the model's own."""
    model: str
    """Hugging Face id of the base model, or a folder that holds it."""
    revision: str = ""
    """Commit of the model."""
    server_arguments: dict[str, Any] = Field({})
    """JSON map of vLLM flags."""
    runtime: Literal["vllm", "transformers"] = "vllm"
    """Server; there is no fallback from vllm to transformers."""
    host: str = "0.0.0.0"
    """Address to listen on."""
    port: int = 5000
    """Port to listen on, as KAITO's servers do."""
    nodes: int = Field(1, ge=1)
    """Nodes of the server. Each runs this command; the environment has its rank and the leader (`node_group`)."""


@dataclass(frozen=True)
class Program:
    """The program that replaces this process."""

    command: list[str]
    environment: dict[str, str]
    member: Member | None = None
    """Node of a server on several nodes, whose program starts together with those of the others."""


def prepare(settings: Settings) -> Program:
    """Fetch model and adapters and return the command of the server.

    Raises:
        BadInput: An adapter or the model is invalid.
        StepError: One of them cannot be fetched.
    """
    from steps.models.model import fetch_model

    arguments = server_command.normalize_arguments(settings.server_arguments)
    choice = server_command.require_server(settings.runtime)
    print(f"server: {choice.reason}", flush=True)
    keys = os.environ.get(api_keys.FOLDER_VARIABLE, "")
    if keys and not api_keys.read_client_key(keys):
        raise BadInput(f"{keys} has no valid API key", "add an entry NAME: KEY to the Secret of pipeline.rollout")
    if unused := server_command.unused_arguments(choice, arguments):
        print(f"not supported by the transformers server, ignored: {', '.join(unused)}", flush=True)
    print(f"fetching base model {settings.model}", flush=True)
    consolidated = server_command.needs_consolidated(choice, arguments)
    base = fetch_model(settings.preset, settings.model, settings.revision, consolidated=consolidated).folder
    folder = Path(os.environ.get(desired_adapters.FOLDER_VARIABLE) or "/tmp/adapters")
    file = Path(os.environ.get(desired_adapters.FILE_VARIABLE) or "/nothing")
    images = os.environ.get(desired_adapters.IMAGES_VARIABLE, "")
    desired = desired_adapters.parse(file.read_text()) if file.is_file() else []
    for adapter in desired:
        print(f"fetching adapter {adapter.name} from {adapter.image or adapter.path}", flush=True)
    adapters = [adapter_compat.read(one.name, fetch_adapter(one, folder, images)) for one in desired]
    template = server_command.chat_template(base, adapters) if choice.kind == "vllm" else ""
    if template and "chat-template" not in arguments:
        files.write_text(folder / "chat_template.jinja", template)
        arguments["chat-template"] = str(folder / "chat_template.jinja")
    name = served_name(settings.preset, settings.model)
    environment = server_command.base_environment(name, choice.kind, base, arguments)
    if settings.nodes == 1:
        command = server_command.build_command(choice, base, name, arguments, settings.port, settings.host)
        return Program(command, environment)
    member = _member(settings, desired, arguments)
    arguments |= group_flags.node_arguments(member.nodes, member.rank, member.leader, node_group.MASTER_PORT)
    if member.rank:
        command = server_command.build_follower(choice, base, name, arguments)
    else:
        command = server_command.build_command(choice, base, name, arguments, settings.port, settings.host)
    return Program(command, environment, member)


def _member(settings: Settings, desired: list[DesiredAdapter], arguments: Mapping[str, Any]) -> Member:
    """Return this node, which has fetched the base model and the desired adapters.

    Raises:
        BadInput: The environment does not name its rank and leader, or the server is not vLLM.
    """
    if settings.runtime != "vllm":
        raise BadInput(f"runtime {settings.runtime} serves on one node only", "use runtime vllm")
    rank, leader = group_environment.rank_and_leader()
    # What must be equal on all nodes; paths of chat templates are.
    common = [settings.model, settings.revision, sorted(arguments.items()), desired_adapters.serialize(desired)]
    digest = files.sha256_text(json.dumps(common))
    return Member(settings.nodes, rank, leader, digest, settings.host, settings.port)


def main() -> NoReturn:
    """Replace this process by the server; an error is the last line of the log."""
    try:
        program = prepare(parse(Settings, sys.argv[1:], "serve_pod"))
    except (StepError, RuntimeError, ValueError, OSError) as error:
        message = " ".join(str(error).split())
        print(f"error: {message}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code if isinstance(error, StepError) else BadInput.exit_code)
    if program.member:
        sys.exit(node_group.run(program.member, program.command, program.environment))
    print(f"starting: {' '.join(program.command)}", flush=True)
    os.execvpe(program.command[0], program.command, program.environment)


if __name__ == "__main__":
    main()
