"""The site's options for the pods of servers (environment, scheduling, resources, images), merged into the pod."""

from __future__ import annotations

import copy
from typing import Any

Document = dict[str, Any]


def apply(options: Document, pod: Document) -> Document:
    """Return the pod template extended by parts of a pod (``metadata``, ``spec`` and ``container``).

    Lists are appended, of environment variables those that the server does not set itself; the requests and limits of
    the options win, what else the server needs wins over the options.
    """
    extended = copy.deepcopy(pod)
    _extend(extended["metadata"], options.get("metadata", {}))
    _extend(extended["spec"], options.get("spec", {}))
    server = extended["spec"]["containers"][0]
    container = copy.deepcopy(options.get("container", {}))
    own = {variable["name"] for variable in server["env"]}
    container["env"] = [variable for variable in container.get("env", []) if variable["name"] not in own]
    for kind, amounts in container.pop("resources", {}).items():
        server["resources"][kind] = {**server["resources"].get(kind, {}), **amounts}
    _extend(server, container)
    return extended


def _extend(document: Document, addition: Document) -> None:
    for key, value in copy.deepcopy(addition).items():
        if isinstance(value, list):
            document[key] = [*document.get(key, []), *value]
        elif isinstance(value, dict):
            document[key] = {**value, **document.get(key, {})}
        else:
            document.setdefault(key, value)
