"""Mutations of foreign data: bytes, JSON values and HTTP responses, from a seeded generator."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

NUMBERS = (0, -1, 1, 255, 2**31, 2**32 - 1, 2**53, 2**63, 2**64, 10**30, -(2**70), 0.5)
TOKENS = (
    *(
        b"{",
        b"[",
        b"}",
        b"]",
        b'"',
        b",",
        b":",
        b"\n",
        b"\r\n",
        b"\\",
        b"%",
        b"&",
        b"#",
        b"null",
        b"NaN",
        b"-Infinity",
    ),
    *(b"1e999", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\0", b"\\ud800", b"\\u0000", b"\x1b[2J", b"\xe2\x80\xae"),
    *(b"$(HF_TOKEN)", b"{{x}}", b"../", b"!!python/object:os.system x", b"&a [*a]", b"<<: *a"),
    *(b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"-" * 3000, b" " * 5000),
)
TEXTS = (
    *(
        "",
        " ",
        "x",
        "0",
        "-1",
        "1e999",
        "true",
        "a" * 5000,
        "\0",
        "\ud800",
        "\u202e",
        "\x1b[31m",
        "é",
        "..",
        "../../x",
        "/",
    ),
    *(
        "sha256:",
        "sha256:" + "a" * 64,
        "sha256:" + "A" * 64,
        "md5:" + "a" * 32,
        "sha512:" + "0" * 64,
        "sha256:../../x",
    ),
    *(
        "http://[",
        "https://x:99999/",
        "file:///etc/passwd",
        "//",
        "http://127.0.0.1:1/x",
        "$(HF_TOKEN)",
        "{{x}}",
        "(" * 300,
    ),
)
SCALARS = (None, True, False, float("nan"), float("inf"), [], {}, [[]], [None], [{}], {"": None}, *NUMBERS, *TEXTS)
SIZES = (1, 2, 4, 8, 50, 300)


def mutate_bytes(chance: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Return content with some of its bytes flipped, cut, doubled, spliced or replaced, or lengths that are wrong."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5])):
        chance.choice(_BYTE_CHANGES)(chance, data, others)
    return bytes(data)


def mutate_json(chance: random.Random, value: Any) -> Any:
    """Return a copy of a JSON value in which some values are replaced, removed, added, renamed, moved or nested."""
    root = [copy.deepcopy(value)]
    for _ in range(chance.choice([1, 1, 2, 4])):
        places = [(parent, key) for parent in _containers(root) for key in _keys(parent)]
        if not places:
            root[0] = copy.deepcopy(chance.choice(SCALARS))
            continue
        parent, key = chance.choice(places)
        _change_value(chance, root, parent, key)
    return root[0]


def mutate_document(chance: random.Random, value: Any) -> bytes:
    """Return the bytes of a JSON value, changed as a value, as bytes, or both."""
    kind = chance.randrange(4)
    changed = mutate_json(chance, value) if kind else value
    if chance.random() < 0.02:
        changed = _nested(chance, changed)
    try:
        content = json.dumps(changed).encode()
    except (ValueError, RecursionError):
        content = b"[" * 100_000
    return mutate_bytes(chance, content) if kind in (0, 3) else content


def _nested(chance: random.Random, value: Any) -> Any:
    """Return the value inside a hundred or a thousand lists or objects."""
    for _ in range(chance.choice([100, 900])):
        value = [value] if chance.random() < 0.5 else {"a": value}
    return value


def _flip(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _replace(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.choice([0, 0xFF, 0x80, chance.randrange(256)])


def _insert(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.choice(TOKENS)


def _remove(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    del data[at : at + chance.choice(SIZES)]


def _repeat(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = data[at : at + chance.choice(SIZES)]


def _truncate(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _splice(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = chance.choice(others) if others else bytes(data)
    data[chance.randrange(len(data) + 1) :] = other[chance.randrange(len(other) + 1) :]


def _resize(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """Write a number where a binary format can have a length or an offset."""
    width = chance.choice([1, 2, 4, 8])
    if len(data) >= width:
        at = chance.choice([0, len(data) - width, chance.randrange(len(data) - width + 1)])
        number = int(chance.choice(NUMBERS)) % 256**width
        data[at : at + width] = number.to_bytes(width, chance.choice(["little", "big"]))


def _renumber(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """Replace a run of digits."""
    starts = [at for at, byte in enumerate(data) if 48 <= byte <= 57][:500]
    if starts:
        begin = end = chance.choice(starts)
        while end < len(data) and 48 <= data[end] <= 57:
            end += 1
        data[begin:end] = f"{int(chance.choice(NUMBERS[:-1]))}".encode()


_BYTE_CHANGES: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    *(_flip, _replace, _insert, _remove, _repeat, _truncate, _splice, _resize, _renumber),
)


def _change_value(chance: random.Random, root: list[Any], parent: Any, key: Any) -> None:
    kind = chance.randrange(8)
    if kind == 0 and parent is not root:
        del parent[key]
    elif kind == 1 and isinstance(parent, list) and parent is not root:
        parent.insert(chance.randrange(len(parent) + 1), copy.deepcopy(parent[key]))
    elif kind == 1 and isinstance(parent, dict):
        parent[chance.choice([*TEXTS[:20], f"{key}s", str(key).upper()])] = parent.pop(key)
    elif kind == 2:
        parent[key] = chance.choice([[parent[key]], {"a": parent[key]}, {str(key): parent[key]}, str(parent[key])])
    elif kind == 3:
        others = [inner for outer in _containers(root) for inner in _values(outer) if inner is not root[0]]
        parent[key] = copy.deepcopy(chance.choice(others)) if others else None
    elif kind == 4 and isinstance(parent[key], str):
        changed = mutate_bytes(chance, parent[key].encode("utf-8", "surrogatepass")[:2000])
        parent[key] = changed.decode("utf-8", "replace")
    elif kind == 5 and isinstance(parent[key], list):
        parent[key] = parent[key] * chance.choice([0, 2, 300])
    else:
        parent[key] = copy.deepcopy(chance.choice(SCALARS))


def _containers(value: Any) -> list[Any]:
    found, pending = [], [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict | list):
            found.append(item)
            pending += _values(item)
    return found[:2000]


def _values(container: Any) -> list[Any]:
    return list(container.values()) if isinstance(container, dict) else list(container)


def _keys(container: Any) -> list[Any]:
    return list(container) if isinstance(container, dict) else list(range(len(container)))
