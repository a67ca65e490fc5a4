"""The commands of docs/CLUSTER.md, in their order: from an installation by its commands to an answer of the adapter.

Unlike the other tests of this folder, it installs into the namespace that the page names. The block with an API key is
not run: it asks the service of another run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from doc_blocks import ROOT, Block, blocks

PAGE = "docs/CLUSTER.md"
NAMESPACE = "argotune"
RUN_SECONDS = 1500
"""Maximum time of the run."""
COLUMNS = re.compile(r" {2,}")


@dataclass
class Reader:
    """A reader of the page, who runs its commands in a checkout."""

    folder: Path
    kubeconfig: str
    exports: list[str] = field(default_factory=list)

    def run(self, script: str, timeout: float = 600) -> str:
        """Run a script with the variables that earlier ones exported; return its output."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        variables = {name: value for name, value in os.environ.items() if not name.startswith("ARGO")}
        done = subprocess.run(
            ["bash", "-c", "\n".join(["set -euo pipefail", *self.exports, script])],
            cwd=self.folder,
            env=variables | {"HOME": str(self.folder), "KUBECONFIG": self.kubeconfig, "PATH": path},
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        self.exports += [line for line in script.splitlines() if line.startswith("export ")]
        return done.stdout


@pytest.fixture
def reader(kubeconfig: str, tmp_path: Path) -> Iterator[Reader]:
    """A reader with a checkout; what the page installs is deleted at the end."""
    shutil.copytree(ROOT / "argo", tmp_path / "argo")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    reader = Reader(tmp_path, str(Path(kubeconfig).absolute()))
    existing = reader.run(f"kubectl get namespace {NAMESPACE} --ignore-not-found --output name")
    assert not existing, f"the cluster has a namespace {NAMESPACE} already, which the test would delete"
    yield reader
    # The pods of an unfinished run would otherwise end in minutes.
    flags = f"--all --namespace {NAMESPACE} --ignore-not-found"
    reader.run(f"kubectl delete workflows,deployments {flags} --wait=false")
    reader.run(f"kubectl delete pods {flags} --force --grace-period=0")
    reader.run("kubectl delete -k argo --ignore-not-found")


def test_the_commands_of_the_page_install_run_and_ask(reader: Reader):
    run = ""
    for block in blocks(PAGE):
        if block.file:
            (reader.folder / block.file).write_text(block.text)
        elif "argotune submit" in block.script:
            run = finish(reader, block)
        elif "oncall-keys" not in block.script and block.script:
            check_output(block, reader.run(_with_name(block.script, run)))


def finish(reader: Reader, block: Block) -> str:
    """Submit the run of the page and wait for its end; return its name."""
    reader.run(block.script)
    names = reader.run(f"kubectl get workflows --namespace {NAMESPACE} --output name").split()
    assert len(names) == 1
    wait = f"kubectl wait {names[0]} --namespace {NAMESPACE} --for=condition=Completed --timeout={RUN_SECONDS}s"
    reader.run(wait, timeout=RUN_SECONDS + 60)
    return names[0].rpartition("/")[2]


def check_output(block: Block, output: str) -> None:
    """Compare the output of a block with that on the page: the checks of doctor, the steps and states of status."""
    if block.language != "console":
        return
    if "argotune doctor" in block.script:
        assert _column(output, 1) >= _column(block.text, 1)
    elif "argotune status" in block.script:
        states = {name for name, *state in _rows(block.text) if state[:1] == ["Succeeded"]}
        assert states
        assert states == {name for name, *state in _rows(output) if state[:1] == ["Succeeded"]}
    elif "argotune chat" in block.script:
        assert output.strip()


def _with_name(script: str, run: str) -> str:
    """Return a script with the name of the run instead of that on the page."""
    return re.sub(r"oncall-cluster-[a-z0-9]{5}\b", run, script)


def _rows(text: str) -> list[list[str]]:
    return [COLUMNS.split(line) for line in text.splitlines() if not line.startswith(("$", " "))]


def _column(text: str, number: int) -> set[str]:
    return {row[number] for row in _rows(text) if len(row) > number}
