"""Hooks of mkdocs: pages link to files of the repository outside ``docs/``, which the site does not have.

Such a link becomes the path of the file, or leads to the repository if ``repo_url`` is set. A path that does not exist
fails the strict build.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_log = logging.getLogger("mkdocs.hooks.site")
_LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)#\s]*)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Return the page's text with links to files outside ``docs/`` replaced."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def replace(match: re.Match[str]) -> str:
        text, target, anchor = match[1], posixpath.normpath(posixpath.join(folder, match[2])), match[3] or ""
        if not (ROOT / target).exists():
            _log.warning("%s links to %s, which does not exist", page.file.src_uri, target)
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{target}{anchor})"
        return f"`{target}`" if text.strip("`").endswith(posixpath.basename(target)) else f"{text} (`{target}`)"

    return _LINK.sub(replace, markdown)
