from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import presets
from steps.models.adapter_compat import ServedAdapter
from steps.runtime.errors import BadInput
from steps.serving import server_command
from steps.serving.server import GRACE_SECONDS
from steps.serving.server_command import Choice

VLLM = Choice("vllm", ["/opt/vllm/bin/vllm", "serve"], "vLLM, on cuda")
TRANSFORMERS = Choice("transformers", [sys.executable, "-m", "steps.serving.serve_transformers"], "transformers")


def adapter(folder: Path, name: str = "tuned", **config: object) -> ServedAdapter:
    return ServedAdapter(name, folder, {"r": 12, **config})


@pytest.fixture
def broken_vllm(tmp_path: Path) -> Path:
    """An environment with a ``vllm`` for a device that this machine does not have."""
    folder = tmp_path / "bin"
    (folder / "packages" / "vllm").mkdir(parents=True)
    (folder / "packages" / "vllm" / "__init__.py").write_text("")
    (folder / "packages" / "vllm" / "platforms.py").write_text("class current_platform:\n    device_type = ''\n")
    python = f'#!/bin/sh\nPYTHONPATH={folder / "packages"} exec {sys.executable} "$@"\n'
    for name, text in (("vllm", "#!/bin/sh\nexit 1\n"), ("python", python)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder / "vllm"


def test_off_selects_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGOTUNE_VLLM", "off")
    assert server_command.choose_server() == Choice(
        "transformers", TRANSFORMERS.program, "transformers (ARGOTUNE_VLLM is off)"
    )


def test_a_requested_vllm_that_does_not_work_is_an_error(
    monkeypatch: pytest.MonkeyPatch, broken_vllm: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("ARGOTUNE_VLLM", str(broken_vllm))
    with pytest.raises(BadInput, match="vLLM finds no device that it was built for"):
        server_command.choose_server()
    monkeypatch.setenv("ARGOTUNE_VLLM", str(tmp_path / "nothing"))
    with pytest.raises(BadInput, match="is not an executable file"):
        server_command.choose_server()


def test_an_installed_vllm_that_does_not_work_is_skipped(monkeypatch: pytest.MonkeyPatch, broken_vllm: Path) -> None:
    monkeypatch.delenv("ARGOTUNE_VLLM", raising=False)
    monkeypatch.setenv("PATH", str(broken_vllm.parent) + os.pathsep + os.environ["PATH"])
    chosen = server_command.choose_server()
    assert chosen.kind == "transformers"
    assert "vLLM finds no device that it was built for" in chosen.reason


def test_flags_of_vllm(tmp_path: Path) -> None:
    arguments = server_command.normalize_arguments(
        {"max_model_len": 2048, "enable-prefix-caching": False, "trust-remote-code": False, "quantization": None,
         "compilation-config": {"level": 3}, "dtype": "bfloat16"}
    )  # fmt: skip
    adapters = [adapter(tmp_path / "a"), adapter(tmp_path / "b", "other", r=8, rank_pattern={"q_proj": 33})]
    room = server_command.lora_arguments([one.rank for one in adapters])
    words = server_command.build_command(VLLM, tmp_path, "base", room | arguments, 8001)
    assert words[:3] == ["/opt/vllm/bin/vllm", "serve", str(tmp_path)]
    text = " ".join(words)
    assert "--served-model-name base --host 127.0.0.1 --port 8001" in text
    assert "--middleware steps.serving.middleware.ServingMiddleware" in text
    assert "--enable-lora --max-loras 3 --max-lora-rank 64" in text, "one more while an adapter is replaced"
    assert "--max-model-len 2048 --no-enable-prefix-caching --no-trust-remote-code" in text
    assert words[words.index("--compilation-config") + 1] == '{"level": 3}'
    assert "quantization" not in text


def test_base_model_without_a_chat_template_gets_that_of_its_adapter(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert server_command.chat_template(tmp_path, [adapter(folder)]) == "{{ messages }}"
    (tmp_path / "chat_template.jinja").write_text("{{ other }}")
    assert server_command.chat_template(tmp_path, [adapter(folder)]) == ""


def test_presets_of_mistral_need_consolidated_weights() -> None:
    models = [model for model in presets.models() if model.vllm.get("load-format") == "mistral"]
    assert len(models) == 7
    for model in models:
        assert server_command.needs_consolidated(VLLM, model.vllm)
        assert not server_command.needs_consolidated(TRANSFORMERS, model.vllm)


def test_no_lora_flags_without_adapters() -> None:
    assert server_command.lora_arguments([]) == {}


def test_a_follower_needs_the_command_of_vllm(tmp_path: Path) -> None:
    works = server_command.Choice("vllm", ["/opt/bin/vllm", "serve"], "")
    command = server_command.build_follower(works, tmp_path, "model", {"headless": True})
    assert command == ["/opt/bin/vllm", "serve", str(tmp_path), "--served-model-name", "model", "--headless"]
    module = server_command.Choice("vllm", ["python", "-m", "vllm.entrypoints.openai.api_server", "--model"], "")
    with pytest.raises(BadInput, match="command does not work"):
        server_command.build_follower(module, tmp_path, "model", {"headless": True})


def test_unsupported_flags_of_transformers(tmp_path: Path) -> None:
    arguments = {"dtype": "float32", "max-model-len": 2048}
    words = server_command.build_command(TRANSFORMERS, tmp_path, "base", arguments, 8001)
    assert " ".join(words[3:]) == f"--base {tmp_path} --name base --dtype float32 --host 127.0.0.1 --port 8001"
    assert server_command.unused_arguments(TRANSFORMERS, arguments) == ["max-model-len"]
    assert server_command.unused_arguments(VLLM, arguments) == []


def test_reserved_flags_are_rejected_together() -> None:
    with pytest.raises(BadInput) as error:
        server_command.normalize_arguments({"port": 1, "lora_modules": "x=y", "--api-key": "s3cret"})
    assert "port: set the port of the rollout" in str(error.value)
    assert "lora-modules: list the adapters" in str(error.value)
    assert "api-key: a command line" in str(error.value)
    assert "s3cret" not in str(error.value)


def test_vllm_ends_its_responses_before_it_is_killed(tmp_path: Path) -> None:
    text = " ".join(server_command.build_command(VLLM, tmp_path, "base", {}, 8001))
    assert "--shutdown-timeout 5" in text
    assert server_command.SHUTDOWN_SECONDS < GRACE_SECONDS
    text = " ".join(server_command.build_command(VLLM, tmp_path, "base", {"shutdown-timeout": 9}, 8001))
    assert "--shutdown-timeout 9" in text
    assert "--shutdown-timeout 5" not in text


def test_the_environment_of_the_server_has_no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("PYTHONPATH", "/ours")
    environment = server_command.build_environment(
        VLLM, "tuned", tmp_path, {"max-model-len": 2048}, tmp_path / "adapters.json", tmp_path / "middleware"
    )
    assert "hf_secret" not in environment.values()
    assert environment["PYTHONPATH"] == str(tmp_path / "middleware")
    assert (environment["ARGOTUNE_ADAPTERS"], environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"]) == (
        str(tmp_path / "adapters.json"),
        "1",
    )
    assert (environment["HF_HUB_OFFLINE"], environment["VLLM_NO_USAGE_STATS"]) == ("1", "1")
    assert environment["ARGOTUNE_DEFAULT_MODEL"] == "tuned"
    assert environment["ARGOTUNE_CONTEXT_LENGTH"] == "2048"
    assert environment["PATH"].startswith("/opt/vllm/bin:")


def test_vllm_imports_the_copied_middleware_without_our_packages(tmp_path: Path) -> None:
    """In vLLM's environment there is Starlette, but nothing of ours beyond the copied files."""
    environment = server_command.build_environment(
        VLLM, "", tmp_path, {}, tmp_path / "adapters.json", tmp_path / "middleware"
    )
    for package in ("starlette", "anyio", "idna", "sniffio", "typing_extensions"):
        if spec := importlib.util.find_spec(package):
            path = Path(str(spec.origin))
            path = path.parent if path.name == "__init__.py" else path
            (tmp_path / "vllm").mkdir(exist_ok=True)
            (tmp_path / "vllm" / path.name).symlink_to(path)
    module, _, name = server_command.MIDDLEWARE.rpartition(".")
    code = f"""
import sys
from {module} import {name}
from steps.serving.adapter_fetch import fetch_adapter
from steps.serving.desired_adapters import DesiredAdapter
from pathlib import Path
try:
    fetch_adapter(DesiredAdapter("a", "sha256:0", path="/nowhere"), Path("/nowhere"))
except FileNotFoundError:
    pass
print(*(module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "steps"), sep="\\n")
"""
    isolated = [sys.executable, "-S", "-P", "-c", code]  # -S: without the packages of this environment
    path = {"PYTHONPATH": os.pathsep.join([environment["PYTHONPATH"], str(tmp_path / "vllm")])}
    done = subprocess.run(isolated, capture_output=True, text=True, env=path, cwd=tmp_path)
    imported = {str(Path(file).relative_to(tmp_path / "middleware" / "steps")) for file in done.stdout.split()}
    assert imported == set(server_command.MIDDLEWARE_FILES), done.stderr
