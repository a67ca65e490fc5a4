"""Requests of the fake Kubernetes API (Kubernetes "API concepts")."""

from __future__ import annotations

import base64
import copy
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import kubernetes_server_apply as server_apply
import kubernetes_server_patch as patches
from kubernetes_server_resources import (
    Call,
    Object,
    Refused,
    Resource,
    details_of,
    expired,
    invalid,
    split_path,
    unknown_path,
)
from kubernetes_server_selectors import matches

if TYPE_CHECKING:
    from kubernetes_server import KubernetesServer

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
APPLY = "application/apply-patch+yaml"


def described(method: str, path: str, query: dict[str, str], body: Any) -> Call:
    """A request in the words of RBAC; discovery and health have no group, and the path as their resource."""
    if path.strip("/") in ("version", "api", "apis", "healthz", "livez", "readyz") or path.startswith("/openapi"):
        return Call("discover", "", path)
    words = path.strip("/").split("/")
    if len(words) == (2 if words[0] == "api" else 3):
        return Call("discover", "", path)
    group, _, namespace, plural, name, subresource = split_path(path)
    if method == "GET":
        watched = query.get("watch") in ("true", "1", "True")
        verb = "get" if name else "watch" if watched else "list"
    else:
        verb = "deletecollection" if method == "DELETE" and not name else VERBS.get(method, method)
    return Call(verb, group, plural, subresource, namespace, name, query=query, body=body)


def perform(cluster: KubernetesServer, method: str, call: Call, content_type: str) -> tuple[int, Object | str]:
    """Status and content of the answer.

    Raises:
        Refused: as the API server refuses.
    """
    if call.verb == "discover":
        return 200, _discovery(cluster, call.resource)
    if call.resource in ("selfsubjectaccessreviews", "selfsubjectrulesreviews", "subjectaccessreviews"):
        return 201, _review(cluster, call)
    resource = cluster.resource(call.resource, call.group)
    if bool(call.namespace) != resource.namespaced and (call.name or call.verb == "create"):
        raise unknown_path()
    if call.subresource == "log":
        return 200, _log(cluster, call)
    if call.subresource not in ("", "scale") and not (call.subresource == "status" and resource.status):
        raise unknown_path()
    dry_run = call.query.get("dryRun") == "All"
    manager = call.query.get("fieldManager") or call.user_agent.partition("/")[0] or "unknown"
    if call.verb == "list":
        return 200, _list(cluster, resource, call)
    if call.verb == "create":
        return 201, cluster.create(resource, call.namespace, call.body, manager, dry_run=dry_run)
    if call.verb == "deletecollection":
        return 200, _delete_all(cluster, resource, call)
    if call.verb == "patch" and content_type == APPLY:
        return _apply(cluster, resource, call, manager, dry_run=dry_run)
    record = cluster.get(resource, call.namespace, call.name)
    if call.verb == "get":
        return 200, _scale(record.document) if call.subresource == "scale" else record.document
    if call.verb == "delete":
        left = cluster.delete(record, call.body or {}, dry_run=dry_run)
        if left["metadata"].get("finalizers"):
            return 200, left
        details = {**details_of(resource, call.name), "uid": left["metadata"]["uid"]}
        return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    new = call.body if call.verb == "update" else _patched(resource, record.document, call, content_type)
    if call.subresource == "scale":
        replicas = new["spec"]["replicas"]
        scaled = copy.deepcopy(record.document)
        scaled["spec"]["replicas"] = replicas
        return 200, _scale(cluster.change(record, scaled, "", manager=manager, dry_run=dry_run))
    if call.verb == "update" and new.get("metadata", {}).get("name") != call.name:
        raise Refused(400, "BadRequest", "the name of the object does not match the name on the URL")
    if call.verb == "update" and resource.custom and not new["metadata"].get("resourceVersion"):
        raise invalid(resource, call.name, "metadata.resourceVersion: must be specified for an update")
    return 200, cluster.change(record, new, call.subresource, manager=manager, dry_run=dry_run)


def _list(cluster: KubernetesServer, resource: Resource, call: Call) -> Object:
    query = call.query
    found = cluster.select(resource, call.namespace, query.get("labelSelector", ""), query.get("fieldSelector", ""))
    version, start = cluster.version, 0
    if query.get("continue"):
        version, start = json.loads(base64.b64decode(query["continue"]))
        if int(version) < cluster.oldest:
            raise expired()
    limit = int(query.get("limit") or 0)
    page = found[start : start + limit] if limit else found[start:]
    metadata: Object = {"resourceVersion": version}
    if start + len(page) < len(found):
        metadata["continue"] = base64.b64encode(json.dumps([version, start + limit]).encode()).decode()
        metadata["remainingItemCount"] = len(found) - start - limit
    return {
        "kind": f"{resource.kind}List",
        "apiVersion": resource.api_version,
        "metadata": metadata,
        # Items of a list of a built-in kind have no ``kind``.
        "items": page if resource.custom else [_without(item, "kind", "apiVersion") for item in page],
    }


def _delete_all(cluster: KubernetesServer, resource: Resource, call: Call) -> Object:
    for item in _list(cluster, resource, call)["items"]:
        metadata = item["metadata"]
        cluster.delete(cluster.get(resource, metadata.get("namespace", ""), metadata["name"]), call.body or {})
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def _apply(
    cluster: KubernetesServer, resource: Resource, call: Call, manager: str, *, dry_run: bool
) -> tuple[int, Object]:
    if not call.query.get("fieldManager"):
        raise Refused(422, "Invalid", "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value")
    desired = call.body
    if desired.get("metadata", {}).get("managedFields"):
        raise Refused(400, "BadRequest", "metadata.managedFields must be nil")
    if desired.get("metadata", {}).get("name", call.name) != call.name:
        raise Refused(400, "BadRequest", "the name of the object does not match the name on the URL")
    force = call.query.get("force") in ("true", "True", "1")
    record = cluster.records.get(cluster.key(resource, call.namespace, call.name))
    if record is None:
        named = {**desired, "metadata": {**desired.get("metadata", {}), "name": call.name}}
        made = cluster.create(resource, call.namespace, named, manager, dry_run=dry_run)
        if not dry_run:
            record = cluster.get(resource, call.namespace, call.name)
            record.owners = {(manager, "Apply"): set(server_apply.fields(resource, desired))}
            record.document["metadata"]["managedFields"] = server_apply.managed_fields(resource, record.owners)
        return 201, made
    new, owners = server_apply.apply(resource, record.document, desired, record.owners, manager, force=force)
    return 200, cluster.change(record, new, call.subresource, owners=owners, dry_run=dry_run)


def _patched(resource: Resource, live: Object, call: Call, content_type: str) -> Object:
    shown = _scale(live) if call.subresource == "scale" else live
    if content_type == "application/json-patch+json":
        return dict(patches.json_patch(shown, call.body))
    if content_type == "application/merge-patch+json":
        return dict(patches.merge(shown, call.body))
    if content_type == "application/strategic-merge-patch+json" and not resource.custom:
        return dict(patches.strategic(shown, call.body))
    raise Refused(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {content_type}")


def _scale(document: Object) -> Object:
    if "replicas" not in document.get("spec", {}) and document["kind"] not in ("Deployment", "StatefulSet"):
        raise unknown_path()
    names = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    metadata = {key: value for key, value in document["metadata"].items() if key in names}
    replicas = document["spec"].get("replicas", 1)
    status = {"replicas": document.get("status", {}).get("replicas", 0)}
    scale = {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata}
    return {**scale, "spec": {"replicas": replicas}, "status": status}


def _log(cluster: KubernetesServer, call: Call) -> str:
    pod = cluster.get(cluster.resource("pods", ""), call.namespace, call.name).document
    names = [container["name"] for container in pod["spec"].get("containers", [])]
    names += [container["name"] for container in pod["spec"].get("initContainers", [])]
    name = call.query.get("container") or names[0]
    if name not in names:
        raise Refused(400, "BadRequest", f"container {name} is not valid for pod {call.name}")
    text = cluster.logs.get((call.namespace, call.name, name))
    if text is None:
        what = f'container "{name}" in pod "{call.name}" is waiting to start: ContainerCreating'
        raise Refused(400, "BadRequest", what)
    lines = text.splitlines(keepends=True)
    tail = call.query.get("tailLines")
    return "".join(lines[-int(tail) :] if tail and int(tail) else [] if tail else lines)


def watch_events(cluster: KubernetesServer, call: Call) -> Iterator[Object]:
    """Events of a watch, until its timeout, ``end_watches`` or the server's end.

    Raises:
        Refused: before the first event, where the resource is not known.
    """
    resource = cluster.resource(call.resource, call.group)
    labels, fields = call.query.get("labelSelector", ""), call.query.get("fieldSelector", "")
    if call.name:
        fields = f"metadata.name={call.name}"
    return _events(cluster, call, resource, labels, fields)


def _events(cluster: KubernetesServer, call: Call, resource: Resource, labels: str, fields: str) -> Iterator[Object]:
    deadline = time.monotonic() + float(call.query.get("timeoutSeconds") or 1800)
    bookmarks = call.query.get("allowWatchBookmarks") in ("true", "True", "1")
    with cluster.changed:
        turn = cluster.watch_round
        seen = int(call.query.get("resourceVersion") or 0)
        # Version 0 or none: begin with what is there.
        begin = cluster.select(resource, call.namespace, labels, fields) if not seen else []
        first = [{"type": "ADDED", "object": copy.deepcopy(item)} for item in begin]
        seen = seen or int(cluster.version)
    yield from first
    while True:
        with cluster.changed:
            try:
                news = list(cluster.changes(seen))
            except Refused as refused:
                error = {"type": "ERROR", "object": refused.status()}
                break
            left = deadline - time.monotonic()
            ended = cluster.closing or cluster.watch_round != turn or left <= 0
            if not news and not ended:
                cluster.changed.wait(left)
                continue
            events = [
                event
                for change in news
                if change.resource == resource
                for event in [_seen(change.before, change.after, call.namespace, labels, fields)]
                if event
            ]
            seen = int(cluster.version)
        yield from events
        if ended:
            if bookmarks:
                mark = {"kind": resource.kind, "apiVersion": resource.api_version}
                yield {"type": "BOOKMARK", "object": {**mark, "metadata": {"resourceVersion": str(seen)}}}
            return
    yield error


def _seen(before: Object | None, after: Object | None, namespace: str, labels: str, fields: str) -> Object | None:
    """A change as a watch with selectors sees it."""

    def chosen(document: Object | None) -> bool:
        here = document is not None and (not namespace or document["metadata"].get("namespace") == namespace)
        return here and document is not None and matches(document, labels, fields)

    was, now = chosen(before), chosen(after)
    if not was and not now:
        return None
    kind = "ADDED" if not was else "MODIFIED" if now else "DELETED"
    return {"type": kind, "object": copy.deepcopy(after if now else before)}


def _review(cluster: KubernetesServer, call: Call) -> Object:
    """Reviews of access: allowed, unless a test has forbidden it, to anyone."""
    review = call.body["spec"].get("resourceAttributes", {})
    resource = f"{review.get('resource', '')}/{review.get('subresource', '')}".rstrip("/")
    denied = (review.get("verb"), resource) in cluster.forbidden
    return {**call.body, "status": {"allowed": not denied}}


def _discovery(cluster: KubernetesServer, path: str) -> Object:
    words = path.strip("/").split("/")
    if words[0] == "version":
        return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
    if path.strip("/") == "api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path.strip("/") == "apis":
        versions: dict[str, list[str]] = {}
        for resource in cluster.resources:
            if resource.group and resource.version not in versions.setdefault(resource.group, []):
                versions[resource.group].append(resource.version)
        groups = []
        for group, names in versions.items():
            shown = [{"groupVersion": f"{group}/{version}", "version": version} for version in names]
            groups.append({"name": group, "versions": shown, "preferredVersion": shown[0]})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if words[0] not in ("api", "apis"):
        raise unknown_path()
    known = [r for r in cluster.resources if r.api_version == "/".join(words[1:])]
    if not known:
        raise unknown_path()
    verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    shown = [
        {"name": r.plural, "singularName": r.kind.lower(), "namespaced": r.namespaced, "kind": r.kind, "verbs": verbs}
        for r in known
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": known[0].api_version, "resources": shown}


def _without(document: Object, *names: str) -> Object:
    return {key: value for key, value in document.items() if key not in names}
