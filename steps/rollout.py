"""Serve the base model and its adapters on this machine, and prove it by a question asked through HTTP.

    python -m steps.rollout --work work --model HuggingFaceTB/SmolLM2-135M-Instruct \\
        --adapters '[{"name": "tuned", "path": "adapter"}]' --question 'What can you do?'

The server outlives this step; ``argotune stop`` ends it. Run again with the same settings, the step finds the server
and asks again; with other settings the old server answers until the new one has. Killed at any moment, it leaves no
server that the next run or ``argotune stop`` would not find.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps import adapter_fit, files, progress, server, server_command
from steps.adapter import adapter_digest
from steps.adapter_fit import ServedAdapter
from steps.errors import BadInput
from steps.server import PortInUse, Server
from steps.server_command import Choice
from steps.step import main, settings

MAX_TOKENS = 200
GREETING = "Hello!"
TRIES = 5
"""Ports tried when none is asked for and others take them in the same moment."""


@settings
class AdapterSource:
    """Where an adapter to serve is: one of ``path`` and ``image``."""

    name: str
    """Name that requests call it by."""
    path: str = ""
    """Folder with adapter_config.json and adapter_model.safetensors; a relative one is below the work folder."""
    image: str = ""
    """OCI reference of an adapter image (KAITO's or ours)."""


@settings
class Settings:
    """Serve a base model and adapters on this machine."""

    work: Path
    """Work folder that the steps share."""
    name: str = ""
    """Name of the service."""
    preset: str = ""
    """Name that the base model is served under; empty: the model's own."""
    model: str
    """Hugging Face id of the base model, or a folder that holds it."""
    revision: str = ""
    """Commit of the model."""
    adapters: list[AdapterSource] = dataclasses.field(default_factory=list)
    """JSON list of {name, path or image}; the first answers where a request names no model."""
    adapter_folders: list[str] = dataclasses.field(default_factory=list)
    """JSON list of more adapter folders, each served under the folder's name."""
    question: str = ""
    """Asked of the first adapter and of the base; empty: they are only greeted."""
    server_arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    """JSON map of vLLM flags (KAITO's inference_config.yaml, section vllm)."""
    port: int = 0
    """Port of the server; 0: the first free one from 8000 on."""
    deadline_seconds: float = 900
    """Time for the server to come up and answer."""
    image_digest: str = ""
    """Digest of the packaged image: another one means another rollout."""


@dataclass(frozen=True)
class Result:
    """Where it is served, and what it said."""

    endpoint: str
    """Root address of the OpenAI-compatible server."""
    answer: str
    """The first adapter's answer to the question (the base's, without adapters)."""
    base_answer: str
    """The base model's answer to the same question."""
    server: str
    """``vllm`` or ``transformers``."""


@dataclass(frozen=True)
class Service:
    """All that shapes a server."""

    choice: Choice
    base: Path
    base_name: str
    adapters: Sequence[ServedAdapter]
    arguments: Mapping[str, Any]
    digest: str

    @property
    def models(self) -> list[str]:
        """Names it answers to."""
        return [self.base_name, *(adapter.name for adapter in self.adapters)]

    @property
    def default_model(self) -> str:
        """Model of requests to ``/chat`` that name none."""
        return self.models[1] if self.adapters else self.base_name


def rollout(settings: Settings) -> Result:
    """Put base and adapters in service and ask the question.

    Raises:
        BadInput: an adapter does not fit the base or the server, or a setting is wrong.
        StepError: the server did not come up, or did not answer; the message tells the cause.
        TimeLimit: it did not within the deadline.
    """
    end = time.monotonic() + settings.deadline_seconds
    service = _service(settings)
    progress.report(0, 3, f"server: {service.choice.reason}")
    running = _serve(settings, service, end)
    progress.report(1, 3, f"serving {', '.join(running.models)} at {running.endpoint}")
    question = settings.question or GREETING
    try:
        answers = {
            model: server.complete(running, model, question, MAX_TOKENS, _left(end)) for model in running.models
        }
    except BaseException:
        server.stop(_starting(settings))  # the one before it, if any, goes on
        raise
    _promote(settings, running)
    progress.report(2, 3, f"question: {question}")
    for model, answer in answers.items():
        print(f"--- {model}\n{answer}")
    progress.report(3, 3, f"endpoint: {running.endpoint}")
    return Result(
        endpoint=running.endpoint,
        answer=answers[service.default_model],
        base_answer=answers[service.base_name],
        server=running.kind,
    )


def _service(settings: Settings) -> Service:
    """Check everything that can be checked before a server is started; all problems are told at once."""
    from steps.model import fetch_model

    arguments = server_command.normalised(settings.server_arguments)
    choice = server_command.choose()
    is_folder = settings.model.startswith(("/", "./", "../", "~"))
    base_name = settings.preset or (Path(settings.model).name if is_folder else settings.model)
    sources = _sources(settings, base_name)
    base = fetch_model(preset=settings.preset, model=settings.model, revision=settings.revision).folder
    adapters, problems = [], []
    for source in sources:
        try:
            adapter = adapter_fit.read(source.name, _folder(settings, source))
        except ValueError as error:
            problems.append(str(error))
            continue
        limit = arguments.get("max-lora-rank")
        problems += adapter_fit.problems(adapter, settings.model, base, choice.kind, limit)
        adapters.append(adapter)
    if problems:
        raise BadInput("; ".join(problems), "give an adapter that was tuned on this model")
    if unused := server_command.unused(choice, arguments):
        print(f"not used by the transformers library's server: {', '.join(unused)}", flush=True)
    shaped_by = {
        "server": [choice.kind, *choice.program],
        "base": [str(base), base_name],
        "adapters": [[adapter.name, adapter_digest(adapter.folder)] for adapter in adapters],
        "arguments": arguments,
        "port": settings.port,
        "image": settings.image_digest,
    }
    digest = files.sha256_text(json.dumps(shaped_by, sort_keys=True))
    return Service(choice, base, base_name, adapters, arguments, digest)


def _sources(settings: Settings, base_name: str) -> list[AdapterSource]:
    folders = [AdapterSource(name=Path(folder).name, path=folder) for folder in settings.adapter_folders]
    sources = [*settings.adapters, *folders]
    problems = [
        f"adapter {source.name or '(no name)'}: give a name, and one of path and image"
        for source in sources
        if not source.name or bool(source.path) == bool(source.image)
    ]
    names = [base_name, *(source.name for source in sources)]
    problems += [f"two models are named {name}" for name in sorted({n for n in names if names.count(n) > 1})]
    problems += [f"adapter {name!r}: a name has no '=', '/' or blank" for name in names[1:] if set(name) & set("=/ ")]
    if problems:
        raise BadInput("; ".join(problems), "mend the list of adapters")
    return sources


def _folder(settings: Settings, source: AdapterSource) -> Path:
    if source.image:
        from steps import reference
        from steps.registry import pull_adapter

        folder = settings.work.absolute() / "serve" / "adapters" / source.name
        return pull_adapter(reference.parse(source.image), folder)
    return settings.work.absolute() / source.path  # an absolute path stays as it is


def _serve(settings: Settings, service: Service, end: float) -> Server:
    """The healthy server of these settings: the one that runs, the one that is starting, or a new one."""
    current = server.read(_record(settings))
    if current and current.settings == service.digest and server.is_healthy(current):
        print("it already runs; nothing is restarted", flush=True)
        server.stop(_starting(settings))
        return current
    starting = server.read(_starting(settings))  # left by a run of this step that was killed
    if starting is None or starting.settings != service.digest or not server.is_alive(starting):
        server.stop(_starting(settings))
        starting = None
    if current and settings.port == current.port:
        print(f"port {settings.port} is asked for: the old server has to go first", flush=True)
        server.stop(_record(settings))
    for attempt in range(TRIES):
        starting = starting or _start(settings, service)
        try:
            server.wait_until_healthy(starting, _log(settings), _left(end))
            return starting
        except PortInUse:
            server.stop(_starting(settings))
            starting = None
            if settings.port or attempt + 1 == TRIES:
                raise
        except BaseException:
            server.stop(_starting(settings))
            raise
    raise AssertionError("the loop above returns or raises")


def _start(settings: Settings, service: Service) -> Server:
    port = settings.port or server.free_port()
    folder = settings.work.absolute() / "serve"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = Server(
        kind=service.choice.kind,
        endpoint=f"http://{server.HOST}:{port}",
        models=service.models,
        command=server_command.command(
            service.choice, service.base, service.base_name, service.adapters, service.arguments, port
        ),
        settings=service.digest,
        mark=secrets.token_hex(8),
    )
    environment = server_command.environment(service.choice, service.default_model, folder / "middleware")
    return server.start(wanted, _starting(settings), _log(settings), environment)


def _promote(settings: Settings, running: Server) -> None:
    """Make the server that has proven itself the one of this work folder, and end the one before it."""
    if server.read(_starting(settings)) == running:
        server.stop(_record(settings))
        os.replace(_starting(settings), _record(settings))


def _left(end: float) -> float:
    return max(1.0, end - time.monotonic())


def _record(settings: Settings) -> Path:
    return settings.work.absolute() / "serve" / server.RECORD


def _starting(settings: Settings) -> Path:
    return settings.work.absolute() / "serve" / server.STARTING


def _log(settings: Settings) -> Path:
    return settings.work.absolute() / "serve" / "server.log"


if __name__ == "__main__":
    main(Settings, rollout)
