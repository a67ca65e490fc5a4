"""The rules of docs/ARCHITECTURE.md, checked in the source: allowed imports, size of files, retries."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_FILE_LINES = 400
HEAVY = {"torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate", "vllm", "lm_eval"}
CLUSTER = {"kubernetes", "azure"}
GPU_STEPS = {"tune", "evaluate"}
# Modules of workflows/ that talk to the network: they submit, watch or run.
ONLINE = {"doctor", "cluster", "run", "runner", "chat", "stop"}
FORBIDDEN_IMPORTS = {
    "steps": {"hera", "workflows"},
    "workflows": HEAVY,
    "presets": {"hera", "workflows", "steps"} | HEAVY | CLUSTER | {"requests"},
}
CONTROL_STEPS = sorted(
    path.parent.name for path in ROOT.glob("steps/*/__main__.py") if path.parent.name not in GPU_STEPS
)
RETRY_LOOPS = ["steps/runtime/retry.py", "steps/serving/adapter_reloader.py"]
"""The reloader polls a file, and repeats a failed update at a later poll."""
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(file: Path, *, at_top: bool = False) -> Iterator[tuple[int, str]]:
    """Yield line and full name of every import of a file, at any depth, those for type checkers included."""
    tree = ast.parse(file.read_text())
    nodes = executed_on_import(tree) if at_top else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative imports hide the package; write its name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            yield from ((node.lineno, str(name.value)) for name in node.args[:1] if isinstance(name, ast.Constant))


def executed_on_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the statements that run when a module is imported, without those for type checkers."""
    pending: list[ast.stmt | ast.ExceptHandler] = list(tree.body)
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif isinstance(node, ast.If | ast.Try | ast.ExceptHandler | ast.With | ast.ClassDef):
            pending += [
                child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.ExceptHandler)
            ]


def violations(package: str, forbidden: set[str], *, at_top: bool = False) -> list[str]:
    return [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in modules(package)
        for line, name in imports(file, at_top=at_top)
        if name.split(".")[0] in forbidden
    ]


@pytest.mark.parametrize("package", FORBIDDEN_IMPORTS)
def test_packages_import_nothing_forbidden(package: str) -> None:
    assert modules(package), f"no package {package}"
    assert violations(package, FORBIDDEN_IMPORTS[package]) == []


def test_steps_import_heavy_libraries_only_inside_functions() -> None:
    heavy = HEAVY | CLUSTER | {"pyarrow", "numpy", "pandas"}
    assert violations("steps", heavy, at_top=True) == []


def test_steps_of_the_image_control_import_only_its_packages() -> None:
    """A rollout on a cluster, for one, has no web framework: servers have it."""
    absent = sorted(HEAVY | {"starlette", "fastapi", "uvicorn", "huggingface_hub", "tokenizers", "safetensors"})
    names = [module_name(file) for step in CONTROL_STEPS for file in modules(f"steps/{step}")]
    source = (
        f"import importlib, sys\nsys.modules.update(dict.fromkeys({absent}))\n"
        f"for name in {[name for name in names if not name.endswith('__main__')]}: importlib.import_module(name)"
    )
    process = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-2000:]


def test_workflows_use_the_network_only_to_submit_watch_or_run() -> None:
    found = violations("workflows", {"requests", "httpx", "urllib3", "socketserver"} | CLUSTER)
    found += [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in modules("workflows")
        for line, name in imports(file)
        if name.startswith(("urllib.request", "http.client"))
    ]
    assert [line for line in found if not ONLINE & set(re.split(r"[/.:]", line))] == []


def test_every_form_of_import_is_found(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "import importlib\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a1\n"
        "try:\n    import a2.deep\nexcept ImportError:\n    from a3 import b as c\n"
        "def f():\n    import a4 as x\n    importlib.import_module('a5.x')\n"
        "class C:\n    def g(self):\n        from a6.y import z\n"
    )
    found = {name.split(".")[0] for _, name in imports(file)}
    assert {"a1", "a2", "a3", "a4", "a5", "a6"} <= found
    top = {name.split(".")[0] for _, name in imports(file, at_top=True)}
    assert {"a2", "a3"} <= top
    assert not {"a1", "a4", "a5", "a6"} & top


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def import_graph() -> dict[str, set[str]]:
    """Return the imports between modules of the project, at any depth, those for type checkers included."""
    files = {module_name(file): file for package in FORBIDDEN_IMPORTS for file in modules(package)}
    graph: dict[str, set[str]] = {name: set() for name in files}
    for name, file in files.items():
        for _, imported in imports(file):
            target = imported if imported in files else imported.rpartition(".")[0]
            graph[name] |= {target} & files.keys() - {name}
    return graph


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """Return the edges that remain after removing, repeatedly, nodes that import nothing or are not imported."""
    while True:
        imported = set[str]().union(*graph.values())
        remaining = {name: targets & graph.keys() for name, targets in graph.items() if name in imported}
        remaining = {name: targets for name, targets in remaining.items() if targets}
        if remaining == graph:
            return sorted(f"{name} -> {target}" for name, targets in graph.items() for target in targets)
        graph = remaining


def test_modules_have_no_import_cycles() -> None:
    assert cycles(import_graph()) == []


def test_directories_have_no_import_cycles() -> None:
    def directory(module: str) -> str:
        parts = module.split(".")
        return ".".join(parts[:2]) if (ROOT / Path(*parts[:2])).is_dir() else module

    graph: dict[str, set[str]] = {}
    for name, targets in import_graph().items():
        graph.setdefault(directory(name), set()).update({directory(target) for target in targets} - {directory(name)})
    assert cycles(graph) == []


def test_import_cycles_are_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b -> c", "c -> b"]


@pytest.mark.parametrize("package", ["spec", "lint"])
def test_spec_and_lint_do_not_import_the_runner(package: str) -> None:
    found = [
        f"{name} imports {target}"
        for name, targets in import_graph().items()
        for target in targets
        if name.startswith(f"workflows.{package}") and target.startswith("workflows.runner")
    ]
    assert found == []


def retry_loops(tree: ast.Module) -> Iterator[int]:
    """Yield the line of each loop that sleeps, and continues after an exception."""
    for loop in ast.walk(tree):
        if isinstance(loop, ast.While | ast.For | ast.AsyncFor):
            nodes = [node for statement in loop.body for node in ast.walk(statement)]
            calls = {ast.unparse(node.func).rpartition(".")[2] for node in nodes if isinstance(node, ast.Call)}
            handlers = [node.body[-1] for node in nodes if isinstance(node, ast.ExceptHandler)]
            if calls & {"sleep", "_sleep"} and any(
                not isinstance(last, ast.Raise | ast.Return | ast.Break) for last in handlers
            ):
                yield loop.lineno


def test_only_the_retry_module_contains_a_retry_loop() -> None:
    found = [
        file.relative_to(ROOT).as_posix()
        for package in ("steps", "workflows")
        for file in modules(package)
        if list(retry_loops(ast.parse(file.read_text())))
    ]
    assert found == RETRY_LOOPS, "use retry_call or Backoff of steps.runtime.retry"


def test_retry_loops_are_found() -> None:
    body = "        try:\n            call()\n        except OSError:\n            {}\n        time.sleep(1)\n"
    for head in ("while True", "for _ in range(5)"):
        assert list(retry_loops(ast.parse(f"def f():\n    {head}:\n" + body.format("pass")))) == [2]
        assert list(retry_loops(ast.parse(f"def f():\n    {head}:\n" + body.format("raise")))) == []


def tracked() -> list[Path]:
    """Return the files that git tracks, or all files of an unpacked archive."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and not any(p.startswith(".") for p in path.parts)]


def test_no_module_has_a_vague_name() -> None:
    assert [str(path) for path in tracked() if path.suffix == ".py" and path.stem in VAGUE] == []


def test_no_file_exceeds_the_maximum_length() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in tracked() if path.suffix == ".py"}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MAX_FILE_LINES} == {}


# The brackets prevent the pattern from matching this file.
LEFTOVERS = re.compile(
    r"/tm[p]/w\b|/wor[k]/(?:main|shared|\.\w+)|\b(?:this|another|a later|previous|next) sessio[n]\b"
)


def test_no_file_mentions_the_development_environment() -> None:
    assert LEFTOVERS.search("see /tmp" + "/w/model") and LEFTOVERS.search("/work" + "/main/steps")
    assert not LEFTOVERS.search("requests.Session, /mnt/work/dataset, /tmp/work, /work/adapter")
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        lines = text.splitlines()
        found += [
            f"{path.relative_to(ROOT)}:{n}: {line[:100]}" for n, line in enumerate(lines, 1) if LEFTOVERS.search(line)
        ]
    assert found == []


@pytest.mark.parametrize("arguments", [["--help"], ["validate", "--help"], ["presets", "--help"], ["run", "--help"]])
def test_the_command_line_starts_without_heavy_libraries(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "workflows.cli", *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    assert "usage: argotune" in process.stdout
    imported = {line.split("|")[-1].strip().split(".")[0] for line in process.stderr.splitlines() if "|" in line}
    assert "workflows" in imported
    assert not imported & (HEAVY | CLUSTER | {"hera", "pyarrow", "numpy"})
