"""Fenced code blocks of the documentation, and the commands in them.

A block `sh` or `console` is run by a test, in the order of its page. A comment before a block says why it is not, and
its commands are only parsed:

    <!-- needs: cluster -->
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDS = {"cluster", "data", "files", "installation", "network", "time"}
"""Reasons for which a block is not run: a cluster; data or files that a page does not have; an installation of
programs; another host; minutes of time."""
SHELL = ("sh", "console")
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)(?P<rest>.*)$")
_NEEDS = re.compile(r"<!-- needs: (\w+) -->")
_FILE = re.compile(r"# ([\w-]+\.yaml)\b")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    needs: str = ""

    @property
    def file(self) -> str:
        """Name of the file that a YAML block shows, from its first line; empty if it shows a part of one."""
        match = _FILE.match(self.text) if self.language == "yaml" else None
        return match[1] if match else ""

    @property
    def script(self) -> str:
        """The commands of a block, without output; empty if it is not for a shell."""
        if self.language != "console":
            return self.text if self.language == "sh" else ""
        lines, is_command = [], False
        for line in self.text.splitlines():
            if line.startswith("$ ") or is_command:
                lines.append(line.removeprefix("$ "))
                is_command = line.endswith("\\")
        return "\n".join(lines) + "\n"


def pages() -> list[str]:
    """Return the paths of all tracked Markdown files."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [page for page in listed.stdout.splitlines() if not page.startswith("tests/") and (ROOT / page).exists()]


@cache
def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    return list(_blocks(page, (ROOT / page).read_text()))


def _blocks(page: str, text: str) -> Iterator[Block]:
    opened: tuple[int, str, str, str] | None = None
    content: list[str] = []
    needs = ""
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if opened and fence and not fence["language"]:
            yield Block(page, opened[0], opened[2], "".join(f"{part}\n" for part in content), opened[3])
            opened, content, needs = None, [], ""
        elif opened:
            content.append(line.removeprefix(opened[1]))
        elif fence:
            opened = (number, fence["indent"], fence["language"], needs)
        elif line.strip():
            found = _NEEDS.search(line)
            needs = found[1] if found else ""
    assert not opened, f"{page}: a block is not closed"


def commands(page: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield line, program and words of each command in a page: of shell blocks, and of indented text that has one."""
    text = (ROOT / page).read_text()
    for block in blocks(page):
        if block.language in SHELL:
            for words in split_commands(block.script):
                yield block.line, words[0], words
    for number, line in enumerate(_without_blocks(text).splitlines(), 1):
        if re.match(r"(    |\t)+(\$ )?argotune [a-z-]+", line):
            for words in split_commands(line.strip().removeprefix("$ ")):
                yield number, words[0], words


def _without_blocks(text: str) -> str:
    """Return text with the lines of fenced blocks empty."""
    return re.sub(
        r"^( *)```.*?^ *```", lambda match: "\n" * match[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL
    )


def split_commands(script: str) -> Iterator[list[str]]:
    """Yield the words of each simple command of a script, without redirections and comments."""
    for line in script.replace("\\\n", " ").splitlines():
        if line.count('"') % 2 or line.count("'") % 2:
            continue  # text of several lines
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split = True
        words: list[str] = []
        is_target = False
        for word in [*lexer, ";"]:
            if word and set(word) <= set("|&;"):
                if words:
                    yield words
                words = []
            elif word and set(word) <= set("<>"):
                is_target = True
            elif is_target:
                is_target = False
            else:
                words.append(word)
