"""The commands in the documentation: blocks for one machine are run as written, all are parsed.

``test_command_examples.py`` runs those of the generated reference, ``tests/cluster`` those of docs/CLUSTER.md.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import cli_page
import doc_runner
import pytest
from doc_blocks import NEEDS, ROOT, SHELL, Block, blocks, commands, pages

RUN_PAGES = [page for page in pages() if any(block.language in SHELL and not block.needs for block in blocks(page))]
"""Pages with blocks that need nothing but the repository."""
FILE_FLAGS = ("-f", "--filename", "-k", "--kustomize", "--patch-file", "--file", "--role-definition")


def _first_run(page: str) -> int | None:
    """Return the position of the first block that runs a Workspace; None if there is none."""
    runs = (number for number, block in enumerate(blocks(page)) if not block.needs and "argotune run " in block.script)
    return next(runs, None)


@pytest.mark.parametrize("page", pages())
def test_reason_of_each_block_that_is_not_run_is_known(page):
    assert [block.needs for block in blocks(page) if block.needs and block.needs not in NEEDS] == []


@pytest.mark.parametrize("page", pages())
def test_each_argotune_command_parses(page, capsys):
    wrong = []
    for line, program, words in commands(page):
        if program == "argotune":
            arguments = words[1:]
            try:
                parse(arguments)
            except SystemExit as ended:
                if ended.code:
                    wrong.append(f"{page}:{line}: {' '.join(words)}: {capsys.readouterr().err.splitlines()[-1]}")
    assert wrong == []


@pytest.mark.parametrize("page", pages())
def test_files_of_the_repository_in_commands_exist(page):
    missing = [
        f"{page}:{line}: {path}"
        for line, program, words in commands(page)
        for flag, path in itertools.pairwise(words)
        if flag in FILE_FLAGS
        and path.startswith(("argo", "containers/", "docs/", "tests/"))
        and not (ROOT / path).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", RUN_PAGES)
def test_commands_run_as_written(page, tmp_path):
    """Run a page up to the first run of a Workspace, which is a slow test."""
    run_page(page, blocks(page)[: _first_run(page)], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUN_PAGES if _first_run(page) is not None])
def test_page_with_a_run_of_a_workspace(page, tmp_path):
    run_page(page, blocks(page), tmp_path)


def run_page(page: str, chosen: list[Block], tmp_path: Path) -> None:
    """Run blocks of a page in a directory that has the repository's files."""
    environment = doc_runner.prepare(tmp_path)
    try:
        doc_runner.run_script(page, "".join(_part(block) for block in chosen), tmp_path, environment)
    finally:
        subprocess.run(["argotune", "stop", "--all"], cwd=tmp_path, env=environment, capture_output=True, timeout=300)


def parse(arguments: list[str]) -> None:
    """Parse the arguments of ``argotune`` as its command line does.

    Raises:
        SystemExit: they are wrong.
    """
    parsers = cli_page.parsers()
    if arguments and arguments[0] in parsers:
        parsers[arguments[0]].parse_args(arguments[1:])
    elif arguments != ["--help"]:
        print(f"unknown command {arguments[:1]}", file=sys.stderr)
        raise SystemExit(2)


def _part(block: Block) -> str:
    """Return a block as part of the script of its page: its commands, or the file that it shows."""
    if block.file:
        return f"cat >{block.file} <<'END_OF_FILE'\n{block.text}END_OF_FILE\n"
    if block.language in SHELL and not block.needs:
        return f"echo line {block.line}\n{block.script}"
    return ""
