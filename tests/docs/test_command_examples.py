"""Examples of the command line reference and README.md that need no cluster: each is run on a Workspace."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import doc_runner
import pytest
from doc_blocks import ROOT, blocks, commands, split_commands

FILE_COMMANDS = {"validate", "schema", "plan", "preflight", "compile", "lint", "preview", "presets", "completion"}
"""Commands that need neither a run nor a cluster."""
RUN_COMMANDS = ("ls", "status", "logs", "report", "chat", "stop")
"""Commands about a local run, in an order in which they work."""
RUN = "oncall-x7k2m"
"""Name of the run in the examples."""
ELSEWHERE = (
    " --cluster",
    " --kube",
    "presets add",
    " -A ",
    " -l ",
    "-terminate",
    "ls --watch",
    " NAME",
    "workspace-x7k2m",
)
"""Parts of commands that need a cluster, the model hub, Ctrl-C, or a name."""
PIPE = re.compile(r"\| (argo|kubectl) [^|]*$")
EXAMPLE = ROOT / "examples" / "smollm2_135m_retraining.yaml"
DATA = ROOT / "examples" / "data"
Prepared = tuple[Path, dict[str, str]]


def examples(commands: Collection[str]) -> dict[str, list[str]]:
    """Return the lines to run of some commands, by command; a line of both reference and README.md counts once."""
    found: dict[str, list[str]] = {}
    for line in dict.fromkeys(PIPE.sub("", line.partition("  #")[0]).strip() for line in _lines()):
        names = [words[words.index("argotune") + 1] for words in split_commands(line) if "argotune" in words]
        if names and set(commands).issuperset(names) and not any(text in line for text in ELSEWHERE):
            found.setdefault(names[-1], []).append(line)
    return found


def _lines() -> Iterator[str]:
    for block in blocks("docs/CLI.md"):
        yield from block.script.replace("\\\n", " ").splitlines()
    for _, program, words in commands("README.md"):
        if program == "argotune":
            yield shlex.join(words)


@pytest.fixture(scope="module")
def data_server() -> Iterator[str]:
    """The address of the example data."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=DATA))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def prepared(data_server: str, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A directory with the files that the examples name, and an environment."""
    folder = tmp_path_factory.mktemp("examples")
    environment = doc_runner.prepare(folder)
    volume = "volumeSource:\n      persistentVolumeClaim:\n        claimName: oncall-data"
    text = EXAMPLE.read_text()
    assert volume in text and "data:\n    evalSplit" in text
    text = text.replace(volume, f'urls: ["{data_server}/oncall.parquet"]')
    text = text.replace("data:\n    evalSplit", "data:\n    allowPrivateHosts: true\n    evalSplit")
    for file in ("workspace.yaml", "teams/search/workspace.yaml"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    (folder / "teams" / "support.yaml").write_text(text.replace("weekly-oncall", "support"))
    for file in ("workflow.yaml", "flows/nightly/workflow.yaml"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "argo" / "smollm2_135m_qlora_parquet.yaml", folder / file)
    (folder / "config.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {}\n")
    (folder / "rows").mkdir()
    shutil.copy(DATA / "oncall.parquet", folder / "rows")
    for completions in (".local/share/bash-completion/completions", ".zfunc", ".config/fish/completions"):
        (folder / "home" / completions).mkdir(parents=True)
    return folder, environment


def test_each_command_that_needs_only_files_has_an_example():
    assert set(examples(FILE_COMMANDS)) == FILE_COMMANDS


# A preview starts the libraries of the model three times; docs/START.md has a fourth, in a test that is not slow.
@pytest.mark.parametrize(
    "command", [*sorted(FILE_COMMANDS - {"preview"}), pytest.param("preview", marks=pytest.mark.slow)]
)
def test_examples_run_as_written(command: str, prepared: Prepared):
    folder, environment = prepared
    doc_runner.run_script("docs/CLI.md", _script(examples(FILE_COMMANDS)[command]), folder, environment)


@pytest.mark.slow
def test_examples_of_a_run(tmp_path: Path):
    environment = doc_runner.prepare(tmp_path) | {"BROWSER": "true"}
    start = list(blocks("docs/START.md"))
    (tmp_path / "workspace.yaml").write_text(next(block.text for block in start if block.file == "workspace.yaml"))
    rows = next(block.script for block in start if "mkdir -p rows" in block.script)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "alice").write_text("a-key-that-this-server-does-not-need")
    lines = examples(RUN_COMMANDS)
    assert set(lines) == set(RUN_COMMANDS)
    run = f"argotune run workspace.yaml --name {RUN} --volume rows=rows\n"
    script = rows + run + _script(line for command in RUN_COMMANDS for line in lines[command])
    try:
        doc_runner.run_script("docs/CLI.md", script, tmp_path, environment)
    finally:
        subprocess.run(["argotune", "stop", "--all"], cwd=tmp_path, env=environment, capture_output=True, timeout=300)


def _script(lines: Iterable[str]) -> str:
    return "".join(f"echo {shlex.quote(line)}\n{line}\n" for line in lines)
