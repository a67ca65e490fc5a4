"""The server to use, and the command that starts it: vLLM, or locally transformers if vLLM does not work.

The command has no adapters, because the server loads them from a file at run time (``adapter_reloader``); it reserves
memory for them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.models import adapter_compat, locations
from steps.models.adapter_compat import ServedAdapter
from steps.runtime import files
from steps.runtime.errors import BadInput
from steps.serving import api_keys, desired_adapters, vllm_flags, vllm_probe
from steps.serving.server import HOST
from steps.serving.vllm_probe import Vllm

STEPS = Path(__file__).parents[1]
MIDDLEWARE = "steps.serving.middleware.ServingMiddleware"
MIDDLEWARE_FILES = (
    *("__init__.py", "runtime/__init__.py", "runtime/files.py", "runtime/json_text.py", "runtime/imports.py"),
    "runtime/adapter_files.py",
    *("models/__init__.py", "models/adapter.py", "models/adapter_compat.py", "models/adapter_weights.py"),
    *("serving/__init__.py", "serving/middleware.py", "serving/allowlist.py", "serving/asgi.py"),
    *("serving/chat_middleware.py", "serving/adapter_reloader.py", "serving/adapter_fetch.py"),
    *("serving/desired_adapters.py", "serving/request_limits.py", "serving/request_texts.py"),
    *("serving/api_keys.py", "serving/api_key_check.py", "serving/rate_limits.py", "serving/disconnect.py"),
    *("serving/cancellation.py", "serving/inner_server.py", "serving/metrics.py"),
    "serving/metrics_address.py",
)
"""Files below ``steps/`` that the middleware imports, copied for a vLLM environment without our packages."""
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", api_keys.CLIENT_VARIABLE)
RESERVED = {
    "model": "set the preset",
    "served-model-name": "remove it: the name is that of the preset",
    "host": "a local server listens on 127.0.0.1 only",
    "port": "set the port of the rollout",
    "uds": "remove it: the server listens on its port",
    "grpc": "remove it: clients use HTTP, where their requests are checked",
    "grpc-port": "remove it: clients use HTTP, where their requests are checked",
    "headless": f"remove it: {vllm_flags.NODES}",
    "nnodes": f"remove it: {vllm_flags.NODES}",
    "node-rank": f"remove it: {vllm_flags.NODES}",
    "master-addr": f"remove it: {vllm_flags.NODES}",
    "master-port": f"remove it: {vllm_flags.NODES}",
    "config": "list its flags themselves",
    "lora-modules": "list the adapters in the Workspace",
    "middleware": "remove it",
    "api-key": "a command line is not secret: set VLLM_API_KEY",
    "hf-token": "a command line is not secret: set HF_TOKEN",
    "trust-remote-code": f"remove it: {vllm_flags.NO_CODE}",
    "api-server-count": f"remove it: {vllm_flags.ONE_API_SERVER}",
    vllm_flags.DATA_PARALLEL: f"remove it, and set replicas: {vllm_flags.ONE_API_SERVER}",
}
"""Flags that the step sets (``vllm_flags``); the value is the fix."""
SHUTDOWN_SECONDS = 5
"""Time that vLLM has for its last responses after SIGTERM; below the time until SIGKILL, locally and in a pod."""


@dataclass(frozen=True)
class Choice:
    """A server that works on this machine."""

    kind: str
    """``vllm`` or ``transformers``."""
    program: list[str]
    """Start of its command line."""
    reason: str


def choose_server() -> Choice:
    """Return the server of this machine: vLLM if it works (see ``find_vllm``), else transformers.

    Raises:
        BadInput: The vLLM of ``ARGOTUNE_VLLM`` does not work, or no server is installed.
    """
    vllm = find_vllm()
    setting = os.environ.get("ARGOTUNE_VLLM", "")
    if vllm.device:
        return _vllm_choice(vllm)
    if setting not in ("", "off"):
        raise BadInput(f"ARGOTUNE_VLLM={setting}: {vllm.reason}", "set the path of a working vllm, or 'off'")
    return _transformers_choice(vllm.reason)


def require_server(runtime: str) -> Choice:
    """Return the server of a pod: ``vllm`` or ``transformers``, without a fallback.

    Raises:
        BadInput: It is not installed or does not work.
    """
    if runtime == "transformers":
        return _transformers_choice("requested")
    vllm = find_vllm()
    if not vllm.device:
        raise BadInput(f"vLLM cannot serve: {vllm.reason}", "use an image whose vLLM runs on the GPUs of the node")
    return _vllm_choice(vllm)


def find_vllm() -> Vllm:
    """Return the vLLM of ``$ARGOTUNE_VLLM`` (path of ``vllm``, or ``off``) or the installed one, after a probe."""
    setting = os.environ.get("ARGOTUNE_VLLM", "")
    if setting == "off":
        return Vllm(reason="ARGOTUNE_VLLM is off")
    installed = Path(sys.executable).with_name("vllm")
    path = setting or shutil.which("vllm") or (str(installed) if installed.exists() else "")
    return vllm_probe.probe(path) if path else Vllm(reason="vLLM is not installed")


def _vllm_choice(vllm: Vllm) -> Choice:
    return Choice("vllm", list(vllm.program), f"vLLM, on {vllm.device}")


def _transformers_choice(reason: str) -> Choice:
    missing = [name for name in ("fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None]
    if missing:
        message = f"no server is installed: {reason}, and {', '.join(missing)} is missing"
        raise BadInput(message, "pip install 'argotune[serve]'")
    program = [sys.executable, "-m", "steps.serving.serve_transformers"]
    return Choice("transformers", program, f"transformers ({reason})")


def normalize_arguments(server_arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags of vLLM with dashes.

    Raises:
        BadInput: The step sets some of these flags, or they are none; the message has all of them.
    """
    arguments = {vllm_flags.normalize(key): value for key, value in server_arguments.items()}
    problems = []
    for key, value in arguments.items():
        reserved = vllm_flags.reserved_name(key)
        if not vllm_flags.is_flag(key):
            problems.append(f"{key!r}: it is not a flag of vLLM")
        elif reserved == "trust-remote-code" and value is False:
            continue  # vLLM's default
        elif reserved:
            problems.append(f"{key}: {RESERVED[reserved]}")
    problems += [f"{key}: its value begins with a dash" for key in vllm_flags.flag_like_values(arguments)]
    if problems:
        raise BadInput(f"server_arguments cannot set {'; '.join(problems)}", "remove them")
    return arguments


def build_command(
    choice: Choice,
    base: Path,
    name: str,
    arguments: Mapping[str, Any],
    port: int,
    host: str = HOST,
) -> list[str]:
    """Return the command that serves ``base`` as ``name`` on ``port``."""
    if choice.kind == "vllm":
        fixed = {"served-model-name": name, "host": host, "port": port, "middleware": MIDDLEWARE}
        defaults = {"shutdown-timeout": SHUTDOWN_SECONDS}
        return [*choice.program, str(base), *format_flags(fixed | defaults | dict(arguments))]
    dtype = ["--dtype", str(arguments["dtype"])] if "dtype" in arguments else []
    return [*choice.program, "--base", str(base), "--name", name, *dtype, "--host", host, "--port", str(port)]


def build_follower(choice: Choice, base: Path, name: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return the command of a node that only computes; it opens no port for clients.

    Raises:
        BadInput: The command of this vLLM does not work; its server module ignores ``--headless``.
    """
    if choice.program[-1] != "serve":
        message = f"vLLM's command does not work, and several nodes need it: {choice.program[0]} lacks its metadata"
        raise BadInput(message, "install the package vllm in the serve image")
    return [*choice.program, str(base), *format_flags({"served-model-name": name} | dict(arguments))]


def lora_arguments(ranks: Sequence[int]) -> dict[str, Any]:
    """Return the flags of vLLM for adapters of these ranks, plus one more while an adapter is replaced."""
    if not ranks:
        return {}
    return {"enable-lora": True, "max-loras": len(ranks) + 1, "max-lora-rank": adapter_compat.vllm_rank(ranks)}


def needs_consolidated(choice: Choice, arguments: Mapping[str, Any]) -> bool:
    """Return True if the server reads the base model's weights in Mistral's format."""
    return choice.kind == "vllm" and arguments.get("load-format") == "mistral"


def chat_template(base: Path, adapters: Sequence[ServedAdapter]) -> str:
    """Return the chat template of an adapter if the base model has none, else ""."""
    if _has_chat_template(base):
        return ""
    return next((t.read_text() for a in adapters if (t := a.folder / "chat_template.jinja").is_file()), "")


def unused_arguments(choice: Choice, arguments: Mapping[str, Any]) -> list[str]:
    """Return the flags that the chosen server does not support."""
    return [] if choice.kind == "vllm" else sorted(set(arguments) - {"dtype"})


def build_environment(
    choice: Choice, default_model: str, base: Path, arguments: Mapping[str, Any], adapters: Path, folder: Path
) -> dict[str, str]:
    """Return the environment of the server: offline, without telemetry, and without tokens.

    Args:
        choice: Server to start.
        default_model: Model for requests without one while there is no adapter.
        base: Folder of the base model.
        arguments: Flags of vLLM.
        adapters: File of the desired adapters.
        folder: Folder for the middleware of vLLM, whose environment does not have our packages.
    """
    environment = base_environment(default_model, choice.kind, base, arguments)
    environment[desired_adapters.FILE_VARIABLE] = str(adapters)
    if choice.kind == "transformers":
        # Prepended, so that ``steps`` can be imported from any working directory.
        return environment | {"PYTHONPATH": _join_paths(str(STEPS.parent), environment.get("PYTHONPATH"))}
    for name in MIDDLEWARE_FILES:
        files.write_text(folder / "steps" / name, (STEPS / name).read_text())
    environment["PATH"] = _join_paths(str(Path(choice.program[0]).parent), environment.get("PATH"))
    environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; by default vLLM takes a share of all memory
    return environment | {"PYTHONPATH": str(folder)}


def base_environment(default_model: str, kind: str, base: Path, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return this process's environment without tokens, offline and without telemetry."""
    inherited = {key: value for key, value in os.environ.items() if key not in TOKENS}
    return inherited | {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        # Only the middleware can reach this API: clients pass the allow-list.
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "ARGOTUNE_DEFAULT_MODEL": default_model,
        desired_adapters.KIND_VARIABLE: kind,
        desired_adapters.BASE_VARIABLE: str(base),
        desired_adapters.CONTEXT_VARIABLE: str(arguments.get("max-model-len", "")),
        "PYTHONUNBUFFERED": "1",
    }


def format_flags(flags: Mapping[str, Any]) -> list[str]:
    """Return flags of vLLM as command line arguments."""
    return [arg for flag, value in flags.items() for arg in _format_flag(flag, value)]


def _format_flag(flag: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, list):
        return [f"--{flag}", *(_format_value(item) for item in value)]
    return [f"--{flag}", _format_value(value)]


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _has_chat_template(base: Path) -> bool:
    config = base / "tokenizer_config.json"
    return (base / "chat_template.jinja").is_file() or (config.is_file() and '"chat_template"' in config.read_text())


def _join_paths(first: str, rest: str | None) -> str:
    return os.pathsep.join(part for part in (first, rest) if part)


def served_name(preset: str, model: str) -> str:
    """Return the name under which a base model is served: that of the preset, or else of the model."""
    return preset or locations.short_name(model)
