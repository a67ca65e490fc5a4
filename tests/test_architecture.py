"""The one rule (docs/ARCHITECTURE.md), read from the source: who may import whom, and how large a file may grow."""

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
# Modules of workflows/ that talk to the network: they submit, watch or run.
ONLINE = {"cluster", "run", "runner", "chat", "stop"}
NEVER = {
    "steps": {"hera", "workflows"},
    "workflows": HEAVY,
    "presets": {"hera", "workflows", "steps"} | HEAVY | CLUSTER | {"requests"},
}
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(file: Path, *, at_the_top: bool = False) -> Iterator[tuple[int, str]]:
    """Line and full name of every import of a file: at any depth, and for type checkers too."""
    tree = ast.parse(file.read_text())
    nodes = top_level(tree) if at_the_top else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative imports hide the package; write its name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            yield from ((node.lineno, str(word.value)) for word in node.args[:1] if isinstance(word, ast.Constant))


def top_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements that run when a module is imported; not those for type checkers alone."""
    todo: list[ast.stmt | ast.ExceptHandler] = list(tree.body)
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
        elif isinstance(node, ast.If | ast.Try | ast.ExceptHandler | ast.With | ast.ClassDef):
            todo += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.ExceptHandler)]


def offences(package: str, forbidden: set[str], *, at_the_top: bool = False) -> list[str]:
    return [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in modules(package)
        for line, name in imports(file, at_the_top=at_the_top)
        if name.split(".")[0] in forbidden
    ]


@pytest.mark.parametrize("package", NEVER)
def test_no_package_imports_what_it_must_not(package: str) -> None:
    assert modules(package), "the package has moved"
    assert offences(package, NEVER[package]) == []


def test_steps_import_heavy_libraries_inside_functions_only() -> None:
    heavy = HEAVY | CLUSTER | {"pyarrow", "numpy", "pandas"}
    assert offences("steps", heavy, at_the_top=True) == []


def test_workflows_reach_the_network_only_to_submit_watch_or_run() -> None:
    told = offences("workflows", {"requests", "httpx", "urllib3", "socketserver"} | CLUSTER)
    told += [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in modules("workflows")
        for line, name in imports(file)
        if name.startswith(("urllib.request", "http.client"))
    ]
    assert [line for line in told if not ONLINE & set(re.split(r"[/.:]", line))] == []


def test_the_rules_see_every_way_to_import(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "import importlib\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a1\n"
        "try:\n    import a2.deep\nexcept ImportError:\n    from a3 import b as c\n"
        "def f():\n    import a4 as x\n    importlib.import_module('a5.x')\n"
        "class C:\n    def g(self):\n        from a6.y import z\n"
    )
    found = {name.split(".")[0] for _, name in imports(file)}
    assert {"a1", "a2", "a3", "a4", "a5", "a6"} <= found
    at_the_top = {name.split(".")[0] for _, name in imports(file, at_the_top=True)}
    assert {"a2", "a3"} <= at_the_top
    assert not {"a1", "a4", "a5", "a6"} & at_the_top


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def import_graph() -> dict[str, set[str]]:
    """Imports between modules of the project, at any depth, and for type checkers too."""
    files = {module_name(file): file for package in NEVER for file in modules(package)}
    graph: dict[str, set[str]] = {name: set() for name in files}
    for name, file in files.items():
        for _, imported in imports(file):
            target = imported if imported in files else imported.rpartition(".")[0]
            graph[name] |= {target} & files.keys() - {name}
    return graph


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """Edges that remain when all that imports nothing, or is imported by nothing, is removed again and again."""
    while True:
        imported = set[str]().union(*graph.values())
        remaining = {name: targets & graph.keys() for name, targets in graph.items() if name in imported}
        remaining = {name: targets for name, targets in remaining.items() if targets}
        if remaining == graph:
            return sorted(f"{name} -> {target}" for name, targets in graph.items() for target in targets)
        graph = remaining


def test_no_modules_import_each_other_in_a_cycle() -> None:
    assert cycles(import_graph()) == []


def test_no_directories_import_each_other_in_a_cycle() -> None:
    def directory(module: str) -> str:
        parts = module.split(".")
        return ".".join(parts[:2]) if (ROOT / Path(*parts[:2])).is_dir() else module

    graph: dict[str, set[str]] = {}
    for name, targets in import_graph().items():
        graph.setdefault(directory(name), set()).update({directory(target) for target in targets} - {directory(name)})
    assert cycles(graph) == []


def test_the_check_finds_cycles() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b -> c", "c -> b"]


@pytest.mark.parametrize("package", ["spec", "lint"])
def test_spec_and_lint_import_nothing_of_the_runner(package: str) -> None:
    offending = [
        f"{name} imports {target}"
        for name, targets in import_graph().items()
        for target in targets
        if name.startswith(f"workflows.{package}") and target.startswith("workflows.runner")
    ]
    assert offending == []


def tracked() -> list[Path]:
    """Files of the project: those git knows, or in an unpacked archive, all."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and not any(p.startswith(".") for p in path.parts)]


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [str(path) for path in tracked() if path.suffix == ".py" and path.stem in VAGUE] == []


def test_no_file_is_longer_than_one_concept_needs() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in tracked() if path.suffix == ".py"}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MAX_FILE_LINES} == {}


# Written so that this file does not contain what it looks for.
LEFTOVERS = re.compile(
    r"/tm[p]/w\b|/wor[k]/(?:main|shared|\.\w+)|\b(?:this|another|a later|previous|next) sessio[n]\b"
)


def test_the_project_speaks_of_itself_alone() -> None:
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


@pytest.mark.parametrize("words", [["--help"], ["validate", "--help"], ["presets", "--help"], ["run", "--help"]])
def test_the_command_line_starts_without_the_heavy_and_the_distant(words: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "workflows.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "usage: argotune" in done.stdout
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "workflows" in imported
    assert not imported & (HEAVY | CLUSTER | {"hera", "pyarrow", "numpy"})
