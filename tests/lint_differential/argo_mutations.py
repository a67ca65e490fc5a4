"""Mutations of Argo documents: each changes one thing, as a person does by mistake.

A text mutation edits the YAML as written (braces, quotes, YAML forms); a tree mutation edits the parsed documents
(names, references, types, cycles, quantities).
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import yaml
from mutation_values import FIELDS, QUANTITIES, TAGS, VALUES, YAML_FORMS

Tree = list[Any]
Location = tuple[Any, ...]
_TAG = re.compile(r"\{\{.*?\}\}")
_SCALAR = re.compile(r"(?<=: )([\w./-]+)$", re.MULTILINE)


def drop_brace(text: str, rng: random.Random) -> str:
    """Remove one brace of a tag."""
    match = _choose(list(_TAG.finditer(text)), rng)
    at = match.start() if rng.random() < 0.5 else match.end() - 1
    return text[:at] + text[at + 1 :]


def drop_braces(text: str, rng: random.Random) -> str:
    """Remove both braces at one end of a tag."""
    match = _choose(list(_TAG.finditer(text)), rng)
    at = match.start() if rng.random() < 0.5 else match.end() - 2
    return text[:at] + text[at + 2 :]


def add_brace(text: str, rng: random.Random) -> str:
    """Double one brace of a tag."""
    match = _choose(list(_TAG.finditer(text)), rng)
    at = rng.choice([match.start(), match.end() - 1])
    return text[:at] + text[at] + text[at:]


def nest_tag(text: str, rng: random.Random) -> str:
    """Put a tag into another."""
    match = _choose(list(_TAG.finditer(text)), rng)
    at = rng.randrange(match.start() + 2, match.end() - 1)
    return text[:at] + rng.choice(TAGS) + text[at:]


def misspell_tag(text: str, rng: random.Random) -> str:
    """Change, remove or double a character of a tag."""
    match = _choose(list(_TAG.finditer(text)), rng)
    at = rng.randrange(match.start() + 2, max(match.end() - 2, match.start() + 3))
    new = rng.choice(["", text[at] * 2, "x", " ", ".", "-"])
    return text[:at] + new + text[at + 1 :]


def replace_tag(text: str, rng: random.Random) -> str:
    """Replace a tag by another."""
    match = _choose(list(_TAG.finditer(text)), rng)
    return text[: match.start()] + rng.choice(TAGS) + text[match.end() :]


def yaml_form(text: str, rng: random.Random) -> str:
    """Replace a plain scalar by another form of YAML."""
    match = _choose(list(_SCALAR.finditer(text)), rng)
    return text[: match.start()] + rng.choice(YAML_FORMS) + text[match.end() :]


def unquote(text: str, rng: random.Random) -> str:
    """Remove the quotes of a scalar."""
    match = _choose(list(re.finditer(r"""(["'])([^"'\n]*)\1""", text)), rng)
    return text[: match.start()] + match[2] + text[match.end() :]


def misspell_word(text: str, rng: random.Random) -> str:
    """Change a word anywhere."""
    match = _choose(list(re.finditer(r"[A-Za-z]{3,}", text)), rng)
    at = rng.randrange(match.start(), match.end())
    return text[:at] + rng.choice(["", "x", text[at].swapcase(), text[at] * 2]) + text[at + 1 :]


def delete_line(text: str, rng: random.Random) -> str:
    """Remove a line."""
    lines = text.splitlines(keepends=True)
    del lines[_choose(range(len(lines)), rng)]
    return "".join(lines)


def double_line(text: str, rng: random.Random) -> str:
    """Repeat a line."""
    lines = text.splitlines(keepends=True)
    at = _choose(range(len(lines)), rng)
    return "".join([*lines[:at], lines[at], *lines[at:]])


def delete_field(tree: Tree, rng: random.Random) -> None:
    """Remove a field or an item."""
    _delete(tree, _choose(list(_locations(tree)), rng))


def rename_field(tree: Tree, rng: random.Random) -> None:
    """Misspell a field."""
    *parent, key = _choose([where for where in _locations(tree) if isinstance(where[-1], str)], rng)
    mapping = _at(tree, parent)
    mapping[f"{key}s" if rng.random() < 0.5 else key[:-1] or "x"] = mapping.pop(key)


def change_value(tree: Tree, rng: random.Random) -> None:
    """Replace a value by one of another type."""
    _set(tree, _choose(list(_locations(tree)), rng), copy.deepcopy(rng.choice(VALUES)))


def insert_tag(tree: Tree, rng: random.Random) -> None:
    """Append a tag to a text, or replace the text by it."""
    where = _choose([where for where in _locations(tree) if isinstance(_at(tree, where), str)], rng)
    _set(tree, where, (_at(tree, where) if rng.random() < 0.5 else "") + rng.choice(TAGS))


def rename(tree: Tree, rng: random.Random) -> None:
    """Change a name, a reference or a dependency."""
    keys = ("name", "template", "entrypoint", "onExit", "depends", "target", "globalName", "key", "path", "from")
    where = _choose(
        [where for where in _locations(tree) if where[-1] in keys and isinstance(_at(tree, where), str)], rng
    )
    value = str(_at(tree, where))
    _set(
        tree,
        where,
        rng.choice([f"{value}x", value[:-1], value.upper(), f"{value}_1", f"{value}.1", f"-{value}", "", f"1{value}"]),
    )


def copy_value(tree: Tree, rng: random.Random) -> None:
    """Replace a value by another of the same field: duplicate names, wrong references."""
    where = _choose([where for where in _locations(tree) if isinstance(where[-1], str)], rng)
    others = [other for other in _locations(tree) if other[-1] == where[-1] and other != where]
    _set(tree, where, copy.deepcopy(_at(tree, _choose(others, rng))))


def copy_item(tree: Tree, rng: random.Random) -> None:
    """Repeat an item of a list."""
    where = _choose([where for where in _locations(tree) if isinstance(where[-1], int) and len(where) > 1], rng)
    _at(tree, where[:-1]).append(copy.deepcopy(_at(tree, where)))


def swap_items(tree: Tree, rng: random.Random) -> None:
    """Exchange two items of a list."""
    lists = [where for where in _locations(tree) if isinstance(_at(tree, where), list) and len(_at(tree, where)) > 1]
    items = _at(tree, _choose(lists, rng))
    i, j = rng.sample(range(len(items)), 2)
    items[i], items[j] = items[j], items[i]


def add_dependency(tree: Tree, rng: random.Random) -> None:
    """Add a dependency to a task: a cycle, an unknown task, both forms."""
    where = _choose([where for where in _locations(tree) if len(where) > 1 and where[-2] == "tasks"], rng)
    names = [str(task.get("name")) for task in _at(tree, where[:-1]) if isinstance(task, dict)]
    name = rng.choice(
        [*names, "nope", f"{names[0]}.Succeded", f"{names[0]}.AnySucceeded", f"{names[0]} &&", f"!{names[0]}.Failed"]
    )
    task = _at(tree, where)
    if rng.random() < 0.5:
        task["depends"] = name
    else:
        task["dependencies"] = [*(task.get("dependencies") or []), name]


def change_quantity(tree: Tree, rng: random.Random) -> None:
    """Set a resource of a container or a claim."""
    owners = [where for where in _locations(tree) if where[-1] in ("container", "script", "spec") and len(where) > 2]
    owner = _at(tree, _choose([where for where in owners if isinstance(_at(tree, where), dict)], rng))
    kind = rng.choice(["requests", "limits"])
    owner.setdefault("resources", {}).setdefault(kind, {})[
        rng.choice(["memory", "cpu", "nvidia.com/gpu", "storage"])
    ] = rng.choice(QUANTITIES)


def add_field(tree: Tree, rng: random.Random) -> None:
    """Add a field that is often wrong to a template, task, parameter, artifact or mount."""
    items = [
        where
        for where in _locations(tree)
        if len(where) > 1 and where[-2] in FIELDS and isinstance(_at(tree, where), dict)
    ]
    where = _choose(items, rng)
    _at(tree, where).update(copy.deepcopy(rng.choice(FIELDS[where[-2]])))


def add_step_field(tree: Tree, rng: random.Random) -> None:
    """Add a field of a task to a step."""
    steps = [
        where
        for where in _locations(tree)
        if len(where) > 3 and where[-3] == "steps" and isinstance(_at(tree, where), dict)
    ]
    _at(tree, _choose(steps, rng)).update(copy.deepcopy(rng.choice(FIELDS["tasks"])))


TEXT_MUTATIONS: tuple[Callable[[str, random.Random], str], ...] = (
    drop_brace,
    drop_braces,
    add_brace,
    nest_tag,
    misspell_tag,
    replace_tag,
    yaml_form,
    unquote,
    misspell_word,
    delete_line,
    double_line,
)
TREE_MUTATIONS: tuple[Callable[[Tree, random.Random], None], ...] = (
    delete_field,
    rename_field,
    change_value,
    insert_tag,
    rename,
    copy_value,
    copy_item,
    swap_items,
    add_dependency,
    change_quantity,
    add_field,
    add_step_field,
)


def mutate(text: str, rng: random.Random) -> tuple[str, str]:
    """Return the name of a random mutation and the mutated document; the same text if nothing can be mutated."""
    for _ in range(20):
        mutation = rng.choice([*TEXT_MUTATIONS, *TREE_MUTATIONS])
        try:
            if mutation in TEXT_MUTATIONS:
                return mutation.__name__, mutation(text, rng)  # type: ignore[arg-type,return-value]
            tree = list(yaml.safe_load_all(text))
            mutation(tree, rng)  # type: ignore[arg-type]
            return mutation.__name__, yaml.safe_dump_all(tree, sort_keys=False, width=1000)
        except (_Nothing, yaml.YAMLError):
            continue
    return "none", text


class _Nothing(Exception):
    """The document has nothing that a mutation changes."""


def _choose(items: Sequence[Any], rng: random.Random) -> Any:
    if not items:
        raise _Nothing
    return rng.choice(items)


def _locations(value: Any, path: Location = ()) -> Iterator[Location]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield from _locations(item, (*path, key))


def _at(tree: Any, where: Sequence[Any]) -> Any:
    for key in where:
        tree = tree[key]
    return tree


def _set(tree: Tree, where: Location, value: Any) -> None:
    _at(tree, where[:-1])[where[-1]] = value


def _delete(tree: Tree, where: Location) -> None:
    del _at(tree, where[:-1])[where[-1]]
