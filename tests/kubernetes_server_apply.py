"""Server-side apply: who manages which field, conflicts, force, and what goes when its manager no longer wants it."""

from __future__ import annotations

import copy
import json
from typing import Any

from kubernetes_server_patch import Path, is_item_key, leaves, put, remove
from kubernetes_server_resources import Object, Refused, Resource

Manager = tuple[str, str]
"""Name and operation: ``Apply`` or ``Update``."""
Owners = dict[Manager, set[Path]]
NOT_OWNED = (("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace"))
SERVER_OWNED = {"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "deletionTimestamp"}


def fields(resource: Resource, document: Object) -> dict[Path, Any]:
    """Return the fields of an object that managers can own."""
    return {
        path: value
        for path, value in leaves(document, custom=resource.custom)
        if path and path not in NOT_OWNED and not (path[0] == "metadata" and SERVER_OWNED & set(path[1:2]))
    }


def apply(
    resource: Resource, live: Object, desired: Object, owners: Owners, manager: str, *, force: bool
) -> tuple[Object, Owners]:
    """The object and its owners after ``manager`` applied ``desired``.

    Raises:
        Refused: 409 where another manager owns a field with another value, and ``force`` is not given.
    """
    me = (manager, "Apply")
    new, there = fields(resource, desired), fields(resource, live)
    lost = {
        (other, path)
        for other, paths in owners.items()
        if other != me
        for path in paths & new.keys()
        if there.get(path) != new[path]
    }
    if lost and not force:
        raise _conflict(sorted(lost, key=str))
    result = copy.deepcopy(live)
    kept = {other: paths - {path for who, path in lost if who == other} for other, paths in owners.items()}
    others = set().union(*(paths for other, paths in kept.items() if other != me))
    # Keys of items last: by them the items are found; inner items before those that hold them.
    gone = kept.get(me, set()) - new.keys() - others
    for path in sorted(gone, key=lambda path: (is_item_key(path), -len(path))):
        remove(result, path)
    for path, value in new.items():
        put(result, path, value)
    kept[me] = set(new)
    return result, {other: paths for other, paths in kept.items() if paths}


def updated(resource: Resource, before: Object, after: Object, owners: Owners, manager: str) -> Owners:
    """Owners after ``manager`` changed an object in another way than by apply: what it changed is its own."""
    old, new = fields(resource, before), fields(resource, after)
    changed = {path for path, value in new.items() if path not in old or old[path] != value}
    result = {other: (paths & new.keys()) - changed for other, paths in owners.items()}
    me = (manager, "Update")
    result[me] = result.get(me, set()) | changed
    return {other: paths for other, paths in result.items() if paths}


def managed_fields(resource: Resource, owners: Owners) -> list[Object]:
    """``metadata.managedFields``."""
    entries = []
    for (manager, operation), paths in sorted(owners.items()):
        tree: Object = {}
        for path in sorted(paths, key=str):
            node = tree
            for step in path:
                node = node.setdefault(_word(step), {})
        entry = {"manager": manager, "operation": operation, "apiVersion": resource.api_version}
        entries.append({**entry, "fieldsType": "FieldsV1", "fieldsV1": tree})
    return entries


def _word(step: Any) -> str:
    return f"k:{json.dumps(dict(step), separators=(',', ':'))}" if isinstance(step, tuple) else f"f:{step}"


def _conflict(lost: list[tuple[Manager, Path]]) -> Refused:
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{manager}"', "field": _dotted(path)}
        for (manager, _), path in lost
    ]
    lines = "".join(f"\n- {cause['message']}: {cause['field']}" for cause in causes)
    message = f"Apply failed with {len(causes)} conflict{'s' * (len(causes) > 1)}:{lines}"
    return Refused(409, "Conflict", message, causes=causes)


def _dotted(path: Path) -> str:
    words = (f"[{','.join(f'{k}={json.dumps(v)}' for k, v in p)}]" if isinstance(p, tuple) else f".{p}" for p in path)
    return "".join(words)
