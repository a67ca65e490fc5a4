"""The local rollout: a server process that outlives the step.

The running server hot-loads other adapters of the same base model: same address, no lost request. Any other change
needs a new server; the old one stays until the new one has answered. ``argotune stop`` stops it. If the step is
killed, the next run and ``argotune stop`` find every server that it has started.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.models import adapter_compat
from steps.models.adapter import adapter_digest
from steps.models.adapter_compat import ServedAdapter
from steps.rollout import adapter_sources, answer_check, probability_check, server_access
from steps.rollout.question import ask_models
from steps.rollout.settings import MAX_TOKENS, Result, Settings
from steps.runtime import files, progress
from steps.runtime.errors import BadInput
from steps.runtime.retry import RetryPolicy, retry_call
from steps.serving import desired_adapters, metrics_address, server, server_command, serving_client
from steps.serving.desired_adapters import DesiredAdapter
from steps.serving.server import PortInUse, Server
from steps.serving.server_command import Choice

OTHER_PORT = RetryPolicy(max_attempts=5, initial_seconds=0.0)
"""Policy for a start whose free port another process has taken first."""
MAX_HEALTH_CHECKS = 3
"""Failed checks after which a running server is replaced."""


@dataclass(frozen=True)
class Service:
    """Configuration of a server, and its desired adapters."""

    choice: Choice
    api_keys: str
    """Folder of the clients' API keys; empty: requests need none."""
    base: Path
    base_name: str
    adapters: Sequence[DesiredAdapter]
    arguments: Mapping[str, Any]
    template: str
    """Chat template for a base model that has none."""
    digest: str
    """Digest of all but the adapters, which a running server can hot-load."""

    @property
    def models(self) -> list[str]:
        """Names of the models."""
        return [self.base_name, *(adapter.name for adapter in self.adapters)]

    @property
    def default_model(self) -> str:
        """Model for requests without one."""
        return self.models[1] if self.adapters else self.base_name


def rollout(settings: Settings) -> Result:
    """Serve base model and adapters locally and ask the question; for errors see ``steps.rollout.step``."""
    end = time.monotonic() + settings.deadline_seconds
    service = _service(settings)
    progress.report(0, 3, f"server: {service.choice.reason}")
    running = _serve(settings, service, end)
    progress.report(1, 3, f"serving {', '.join(running.models)} at {running.endpoint}")
    num_top = probability_check.num_top(settings.server_arguments)
    try:
        question, answers = ask_models(
            settings,
            running.models,
            lambda model, text: serving_client.complete(
                running.endpoint, model, text, MAX_TOKENS, _remaining_seconds(end)
            ),
        )
        agreement = answer_check.compare(
            settings,
            lambda model, messages, tokens: serving_client.chat(
                running.endpoint, model, messages, tokens, _remaining_seconds(end), top_logprobs=num_top
            ),
        )
    except BaseException:
        _rollback(settings)
        raise
    _promote(settings, running)
    progress.report(2, 3, f"question: {question}")
    for model, answer in answers.items():
        print(f"--- {model}\n{answer}")
    print(f"--- compared with the evaluation\n{agreement}")
    progress.report(3, 3, f"endpoint: {running.endpoint}")
    return Result(
        endpoint=running.endpoint,
        answer=answers[service.default_model],
        base_answer=answers[service.base_name],
        server=running.kind,
        agreement=agreement,
        question=question,
    )


def _service(settings: Settings) -> Service:
    """Return the configuration of the server; check it and report all problems together."""
    from steps.models.model import fetch_model

    user_arguments = server_command.normalize_arguments(settings.server_arguments)
    keys = server_access.keys_folder(settings)
    transformers = settings.runtime == "transformers"
    choice = server_command.require_server("transformers") if transformers else server_command.choose_server()
    sources = adapter_sources.list_sources(settings)
    consolidated = server_command.needs_consolidated(choice, user_arguments)
    base = fetch_model(settings.preset, settings.model, settings.revision, consolidated=consolidated).folder
    adapters, problems = [], []
    for source in sources:
        try:
            adapter = adapter_compat.read(source.name, adapter_sources.adapter_folder(settings, source))
        except ValueError as error:
            problems.append(str(error))
            continue
        limit = user_arguments.get("max-lora-rank")
        problems += adapter_compat.problems(adapter, settings.model, base, choice.kind, limit)
        adapters.append(adapter)
    if problems:
        raise BadInput("; ".join(problems), "use adapters that were tuned on this model")
    if unused := server_command.unused_arguments(choice, user_arguments):
        print(f"not supported by the transformers server, ignored: {', '.join(unused)}", flush=True)
    lora_arguments = (
        server_command.lora_arguments([adapter.rank for adapter in adapters]) if choice.kind == "vllm" else {}
    )
    template = server_command.chat_template(base, adapters) if choice.kind == "vllm" else ""
    arguments = lora_arguments | user_arguments
    config = {
        "server": [choice.kind, *choice.program],
        "base": [str(base), adapter_sources.base_name(settings)],
        "arguments": arguments,
        "template": template,
        "port": settings.port,
        "access": server_access.environment(settings, keys),
    }
    digest = files.sha256_text(json.dumps(config, sort_keys=True))
    desired = [_cache_adapter(settings, adapter) for adapter in adapters]
    return Service(choice, keys, base, adapter_sources.base_name(settings), desired, arguments, template, digest)


def _cache_adapter(settings: Settings, adapter: ServedAdapter) -> DesiredAdapter:
    """Copy an adapter to a folder named after its digest, so that the next tuning does not change it."""
    digest = adapter_digest(adapter.folder)
    desired = DesiredAdapter(name=adapter.name, digest=digest)
    folder = _folder(settings) / "adapters" / desired.version
    if not folder.is_dir():
        with files.replacing_folder(folder) as temporary:
            shutil.copytree(adapter.folder, temporary, dirs_exist_ok=True, copy_function=_link)
    return dataclasses.replace(desired, path=str(folder))


def _link(source: str, target: str) -> None:
    """Hard-link a file, or copy it to another file system; the tune step replaces files and never writes into them."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _serve(settings: Settings, service: Service, end: float) -> Server:
    """Return a healthy server of these settings: the running one, the one that is starting, or a new one."""
    current = server.read(_record(settings))
    if current and current.settings == service.digest and _is_healthy(current):
        server.stop(_starting(settings))
        return _reload_adapters(settings, service, current, end)
    starting = server.read(_starting(settings))  # of a run that was killed
    if starting is None or starting.settings != service.digest or not server.is_alive(starting):
        server.stop(_starting(settings))
        starting = None
    if current and settings.port == current.port:
        print(f"stopping the old server, because port {settings.port} is required", flush=True)
        server.stop(_record(settings))

    def attempt() -> Server:
        nonlocal starting
        starting = _with_adapters(service, starting or _start(settings, service))
        try:
            serving_client.write_adapters(server.adapters_file(starting, _folder(settings)), service.adapters)
            server.wait_until_healthy(starting, _log(settings), _remaining_seconds(end))
        except BaseException:
            server.stop(_starting(settings))
            starting = None
            raise
        return starting

    return retry_call(attempt, OTHER_PORT, retry_if=lambda error: isinstance(error, PortInUse) and not settings.port)


def _is_healthy(running: Server) -> bool:
    """Return True if a server is healthy; a busy one gets several checks before it is replaced."""
    return any(server.is_healthy(running) for _ in range(MAX_HEALTH_CHECKS) if server.is_alive(running))


def _reload_adapters(settings: Settings, service: Service, current: Server, end: float) -> Server:
    """Hot-load the adapters into the running server; on failure, restore the current ones."""
    expected = _with_adapters(service, current)
    file = server.adapters_file(current, _folder(settings))
    config_digest = desired_adapters.config_digest(desired_adapters.serialize(service.adapters))
    if (
        expected.adapters == current.adapters
        and serving_client.get_state(current.endpoint).get("reached") == config_digest
    ):
        print("the server already serves these adapters; nothing to do", flush=True)
        return current
    print("hot-loading the adapters into the running server", flush=True)
    try:
        serving_client.write_adapters(file, service.adapters)
        serving_client.wait_for_adapters(
            current.endpoint,
            config_digest,
            _remaining_seconds(end),
            lambda: "" if server.is_alive(current) else "the server exited",
        )
    except BaseException:
        _rollback(settings)
        raise
    return expected


def _rollback(settings: Settings) -> None:
    """Stop a server that is starting, and restore the adapters of the live one."""
    server.stop(_starting(settings))
    current = server.read(_record(settings))
    if current:
        recorded = [DesiredAdapter(**adapter) for adapter in current.adapters]
        serving_client.write_adapters(server.adapters_file(current, _folder(settings)), recorded)


def _start(settings: Settings, service: Service) -> Server:
    port = settings.port or server.free_port()
    metrics = f"{server.HOST}:{server.free_port([one for one in server.PORTS if one != port])}"
    metrics = metrics if service.choice.kind == "vllm" else ""  # transformers has none
    folder = _folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = dict(service.arguments)
    if service.template and "chat-template" not in arguments:
        file = folder / "chat_template.jinja"
        files.write_text(file, service.template)
        arguments["chat-template"] = str(file)
    new = Server(
        kind=service.choice.kind,
        endpoint=f"http://{server.HOST}:{port}",
        models=[],
        command=server_command.build_command(service.choice, service.base, service.base_name, arguments, port),
        settings=service.digest,
        mark=secrets.token_hex(8),
        api_keys=service.api_keys,
        metrics=metrics and f"http://{metrics}{metrics_address.PATH}",
    )
    environment = server_command.build_environment(
        service.choice,
        service.base_name,
        service.base,
        arguments,
        server.adapters_file(new, folder),
        folder / "middleware",
    )
    environment |= server_access.environment(settings, service.api_keys) | {metrics_address.ADDRESS_VARIABLE: metrics}
    return server.start(new, _starting(settings), _log(settings), environment)


def _with_adapters(service: Service, running: Server) -> Server:
    """Return the record of a server once it serves these adapters."""
    adapters = [dataclasses.asdict(adapter) for adapter in service.adapters]
    return dataclasses.replace(running, models=service.models, adapters=adapters)


def _promote(settings: Settings, running: Server) -> None:
    """Record the new server as the live one and stop the previous one; delete unused adapters."""
    starting = server.read(_starting(settings))
    if starting and starting.mark == running.mark:
        server.write(_starting(settings), running)
        server.stop(_record(settings))
        os.replace(_starting(settings), _record(settings))
    elif server.read(_record(settings)) != running:
        server.write(_record(settings), running)
    served = {Path(adapter["path"]).name for adapter in running.adapters}
    state = serving_client.get_state(running.endpoint)
    draining = {version for version in state.get("running", {}) if version}
    for folder in (_folder(settings) / "adapters").glob("*"):
        if folder.name not in served | draining:
            shutil.rmtree(folder, ignore_errors=True)


def _remaining_seconds(end: float) -> float:
    return max(1.0, end - time.monotonic())


def _folder(settings: Settings) -> Path:
    return settings.work.absolute() / "serve"


def _record(settings: Settings) -> Path:
    return _folder(settings) / server.RECORD


def _starting(settings: Settings) -> Path:
    return _folder(settings) / server.STARTING


def _log(settings: Settings) -> Path:
    return _folder(settings) / "server.log"
