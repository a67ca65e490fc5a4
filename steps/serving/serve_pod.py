"""Start the server of a pod: its base model and adapters are fetched, then this process becomes the server.

    python -m steps.serving.serve_pod --model microsoft/phi-4 --server-arguments '{"max-model-len": 8192}'

The adapters stand in the file that ``$ARGOTUNE_ADAPTERS`` names. They are loaded once the server is up, and whenever
the file changes (``adapter_switch``); here they are pulled ahead, so that what can't be had is told at once,
and a base model without a chat template gets that of its adapter.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import Field

from steps.models import adapter_compat
from steps.runtime import files
from steps.runtime.entrypoint import parse
from steps.runtime.errors import BadInput, StepError
from steps.runtime.options import Options
from steps.serving import desired_adapters, server_command
from steps.serving.adapter_fetch import fetch_adapter
from steps.serving.server_command import served_name

SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


class Settings(Options):
    """Serve a base model and the adapters of a file."""

    preset: str = ""
    """Name that the base model is served under; empty: the model's own."""
    model: str
    """Hugging Face id of the base model, or a folder that holds it."""
    revision: str = ""
    """Commit of the model."""
    server_arguments: dict[str, Any] = Field({})
    """JSON map of vLLM flags."""
    host: str = "0.0.0.0"
    """Address to listen on."""
    port: int = 5000
    """Port to listen on, as KAITO's servers do."""


@dataclass(frozen=True)
class Program:
    """What this process becomes."""

    command: list[str]
    environment: dict[str, str]


def prepare(given: Settings) -> Program:
    """Fetch everything, and say how the server is started.

    Raises:
        BadInput: an adapter or the model is not what it should be.
        StepError: one of them can't be had.
    """
    from steps.models.model import fetch_model

    arguments = server_command.normalize_arguments(given.server_arguments)
    choice = server_command.choose_server()
    base = fetch_model(preset=given.preset, model=given.model, revision=given.revision).folder
    folder = Path(os.environ.get(desired_adapters.FOLDER_VARIABLE) or "/tmp/adapters")
    file = Path(os.environ.get(desired_adapters.FILE_VARIABLE) or "/nothing")
    images = os.environ.get(desired_adapters.IMAGES_VARIABLE, "")
    wanted = desired_adapters.parse(file.read_text()) if file.is_file() else []
    adapters = [adapter_compat.read(one.name, fetch_adapter(one, folder, images)) for one in wanted]
    template = server_command.chat_template(base, adapters) if choice.kind == "vllm" else ""
    if template and "chat-template" not in arguments:
        files.write_text(folder / "chat_template.jinja", template)
        arguments["chat-template"] = str(folder / "chat_template.jinja")
    name = served_name(given.preset, given.model)
    command = server_command.build_command(choice, base, name, arguments, given.port, given.host)
    kept = {key: value for key, value in os.environ.items() if key not in SECRETS}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1"}
    ours = {"ARGOTUNE_DEFAULT_MODEL": name, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "PYTHONUNBUFFERED": "1"}
    return Program(command, kept | offline | ours)


def main() -> NoReturn:
    """Become the server; what keeps it from starting is the last line of the log."""
    try:
        program = prepare(parse(Settings, sys.argv[1:], "serve_pod"))
    except (StepError, RuntimeError, ValueError, OSError) as error:
        what = " ".join(str(error).split())
        print(f"error: {what}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code if isinstance(error, StepError) else BadInput.exit_code)
    print(f"starting: {' '.join(program.command)}", flush=True)
    os.execvpe(program.command[0], program.command, program.environment)


if __name__ == "__main__":
    main()
