"""The four kinds of Kubernetes patches: JSON patch (RFC 6902), merge patch (RFC 7386), strategic, and apply."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from kubernetes_server_resources import Object, Refused

MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "ownerReferences": ("uid",),
    "conditions": ("type",),
}
"""Fields that identify the items of a list (``listMapKeys`` of the OpenAPI document); other lists are atomic."""
METADATA_LISTS = ("ownerReferences",)
"""Those of them that custom resources have too."""

Path = tuple[Any, ...]
"""Keys from the root to a value; a tuple of pairs among them is an item of a list, told by its keys."""


def merge(live: Any, patch: Any) -> Any:
    """Merge patch: maps are merged, null removes, all else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(live) if isinstance(live, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def strategic(live: Any, patch: Any) -> Any:
    """Strategic merge patch: as merge patch, and known lists are merged by the keys of their items."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    result = copy.deepcopy(live) if isinstance(live, dict) else {}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            result[name] = [item for item in result.get(name, []) if item not in value]
        elif key.startswith(("$setElementOrder/", "$retainKeys")):
            continue
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, list) and key == "finalizers":
            result[key] = [*result.get(key, []), *(item for item in value if item not in result.get(key, []))]
        elif isinstance(value, list) and (keys := merge_keys(key, value)):
            result[key] = _merged_list(result.get(key) or [], value, keys)
        else:
            result[key] = strategic(result.get(key), value)
    return result


def _merged_list(live: list[Object], patch: list[Object], keys: tuple[str, ...]) -> list[Object]:
    result = {item_key(item, keys): item for item in live}
    for item in patch:
        name = item_key(item, keys)
        if item.get("$patch") == "delete":
            result.pop(name, None)
        else:
            result[name] = strategic(result.get(name), item)
    return list(result.values())


def json_patch(live: Any, operations: list[Object]) -> Any:
    """JSON patch.

    Raises:
        Refused: 422 for a path that is not there or a ``test`` that fails, as the API server does.
    """
    document = copy.deepcopy(live)
    for operation in operations:
        try:
            _do(document, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Refused(422, "Invalid", f"the server rejected our request due to an error in it: {error}") from None
    return document


def _do(document: Any, operation: Object) -> None:
    kind, path = operation["op"], operation["path"]
    if kind in ("move", "copy"):
        value = copy.deepcopy(_read(document, operation["from"]))
        if kind == "move":
            _do(document, {"op": "remove", "path": operation["from"]})
        kind = "add"
    else:
        value = copy.deepcopy(operation.get("value"))
    parent, _, last = path.rpartition("/")
    holder = _read(document, parent)
    name: Any = _unescaped(last)
    if isinstance(holder, list):
        name = len(holder) if name == "-" else int(name)
    if kind == "add" and isinstance(holder, list):
        holder.insert(name, value)
    elif kind == "add":
        holder[name] = value
    elif kind == "remove":
        del holder[name]
    elif kind == "replace":
        _ = holder[name]
        holder[name] = value
    elif kind == "test":
        if holder[name] != value:
            raise ValueError(f"testing path {path} failed")
    else:
        raise ValueError(f"unknown operation {kind}")


def _read(document: Any, pointer: str) -> Any:
    for word in pointer.split("/")[1:]:
        document = document[int(word)] if isinstance(document, list) else document[_unescaped(word)]
    return document


def _unescaped(word: str) -> str:
    return word.replace("~1", "/").replace("~0", "~")


def merge_keys(name: str, items: list[Any], *, custom: bool = False) -> tuple[str, ...]:
    """Fields that tell the items of a list apart; none for an atomic list."""
    if not all(isinstance(item, dict) for item in items) or (custom and name not in METADATA_LISTS):
        return ()
    if name == "ports" and items and ("containerPort" in items[0] or "port" in items[0]):
        return ("containerPort" if "containerPort" in items[0] else "port", "protocol")
    keys = MERGE_KEYS.get(name, ())
    return keys if all(key in item for item in items for key in keys) else ()


def item_key(item: Object, keys: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    return tuple((key, item.get(key, "TCP" if key == "protocol" else None)) for key in keys)


def leaves(value: Any, *, custom: bool, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every field that a manager can own by itself, with its value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, custom=custom, path=(*path, key))
    elif isinstance(value, list) and value and (keys := merge_keys(str(path[-1]), value, custom=custom)):
        for item in value:
            yield from leaves(item, custom=custom, path=(*path, item_key(item, keys)))
    else:
        yield path, value


def is_item_key(path: Path) -> bool:
    """Return True if a field identifies its list item."""
    return len(path) > 1 and isinstance(path[-2], tuple) and path[-1] in dict(path[-2])


def put(document: Any, path: Path, value: Any) -> None:
    """Set one field, making the maps, lists and items on the way."""
    holder = document
    for place, step in enumerate(path[:-1]):
        if isinstance(step, tuple):
            holder = _item(holder, step)
        else:
            empty: Any = [] if isinstance(path[place + 1], tuple) else {}
            if not isinstance(holder.get(step), type(empty)):
                holder[step] = empty
            holder = holder[step]
    holder[path[-1]] = copy.deepcopy(value)


def remove(document: Any, path: Path) -> None:
    """Remove one field, and the items and maps that have nothing else left in them."""
    trail = [(document, path[0])]
    for place, step in enumerate(path[:-1]):
        holder = trail[-1][0]
        inner = _found(holder, step) if isinstance(step, tuple) else holder.get(step)
        if inner is None:
            return
        trail.append((inner, path[place + 1]))
    holder, name = trail.pop()
    if is_item_key(path):
        # An item goes when nothing but its keys is left in it.
        if holder.keys() - dict(path[-2]).keys():
            return
        items = trail.pop()[0]
        items[:] = [other for other in items if other is not holder]
    else:
        holder.pop(name, None)
    for outer, step in reversed(trail):
        if isinstance(step, tuple) or outer.get(step):
            return
        outer.pop(step, None)


def _found(items: list[Object], step: tuple[tuple[str, Any], ...]) -> Object | None:
    keys = tuple(key for key, _ in step)
    return next((item for item in items if item_key(item, keys) == step), None)


def _item(items: list[Object], step: tuple[tuple[str, Any], ...]) -> Object:
    found = _found(items, step)
    if found is None:
        found = {key: value for key, value in step if value is not None}
        items.append(found)
    return found
