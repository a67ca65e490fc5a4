"""Glob patterns of file names: ``*`` stays within a folder, ``**`` spans folders, ``[ab]`` and ``{a,b}`` select.

``?`` is no wildcard, because it begins the query of a URL.
"""

from __future__ import annotations

import re

_WILDCARD = re.compile(r"[*\[{]")


def is_pattern(path: str) -> bool:
    """Return True if a path has wildcards."""
    return _WILDCARD.search(path) is not None


def is_valid(pattern: str) -> bool:
    """Return True if a pattern can be matched; ``[z-a]`` cannot."""
    try:
        re.compile(_translate(pattern))
    except re.error:
        return False
    return True


def literal_folder(pattern: str) -> str:
    """Return the folders before the first wildcard, without a slash at the end."""
    found = _WILDCARD.search(pattern)
    return pattern[: found.start()].rpartition("/")[0] if found else pattern.rstrip("/")


def matches(pattern: str, path: str) -> bool:
    """Return True if a path matches a pattern as a whole."""
    return re.fullmatch(_translate(pattern), path) is not None


def _translate(pattern: str) -> str:
    regex, position = "", 0
    while position < len(pattern):
        rest = pattern[position:]
        group = re.match(r"\{([^{}]*)\}", rest)
        characters = re.match(r"\[(!?)(\]?[^\]/]*)\]", rest)
        if rest.startswith("**/"):
            regex, position = f"{regex}(?:[^/]+/)*", position + 3
        elif rest.startswith("**"):
            regex, position = f"{regex}.*", position + 2
        elif rest[0] == "*":
            regex, position = f"{regex}[^/]*", position + 1
        elif group:
            regex += f"(?:{'|'.join(_translate(choice) for choice in group[1].split(','))})"
            position += group.end()
        elif characters:
            inner = characters[2].replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]").replace("^", r"\^")
            regex += f"[{'^/' if characters[1] else ''}{inner}]"
            position += characters.end()
        else:
            regex, position = regex + re.escape(rest[0]), position + 1
    return regex
