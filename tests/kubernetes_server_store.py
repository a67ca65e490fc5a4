"""Objects of the fake Kubernetes API: versions, generations, finalizers, owners, history for watches."""

from __future__ import annotations

import copy
import datetime
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import kubernetes_server_apply as server_apply
import kubernetes_server_gates as gates
from kubernetes_server_apply import Owners
from kubernetes_server_resources import (
    RESOURCES,
    NoSuchGroup,
    Object,
    Refused,
    Resource,
    already_exists,
    conflict,
    expired,
    invalid,
    not_found,
    other_object,
    unknown_path,
)
from kubernetes_server_selectors import matches

Key = tuple[str, str, str, str]
"""Group, plural, namespace, name."""
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
IMMUTABLE = {("deployments", "spec.selector"), ("nodeclaims", "spec"), ("jobs", "spec.template")}


@dataclass
class Record:
    resource: Resource
    document: Object
    owners: Owners = field(default_factory=dict)


@dataclass
class Change:
    """One event, with the object before it, so that a watch with a selector sees objects come and go."""

    version: int
    resource: Resource
    before: Object | None
    after: Object | None


class Store:
    """All objects. Every method that changes something raises ``Refused`` as the API server would."""

    def __init__(self) -> None:
        self.resources = list(RESOURCES)
        self.controllers: list[Callable[[str, Object], None]] = []
        """Called with ``ADDED``, ``MODIFIED`` or ``DELETED`` and the object, after each change."""
        self.records: dict[Key, Record] = {}
        self.history: list[Change] = []
        self.changed = threading.Condition(threading.RLock())
        self.oldest = 0
        """Versions before this one are forgotten: 410."""
        self.image_volumes: gates.Gate = "off"
        """State of the feature gate ImageVolume."""
        self._version = 0
        self._todo: list[tuple[str, Object]] = []
        self._controlling = False

    # For tests: as it were from behind the server, with status and all.

    def put(self, document: Object) -> Object:
        """Create an object, or replace it as a whole."""
        with self.changed:
            resource = self.resource_of(document)
            metadata = document["metadata"]
            key = self.key(resource, metadata.get("namespace", "default"), metadata["name"])
            old = self.records.get(key)
            new = copy.deepcopy(document)
            new["metadata"] = {**_kept(old.document if old else None), **new["metadata"]}
            if resource.namespaced:
                new["metadata"]["namespace"] = key[2]
            return self._commit(resource, key, old, new, old.owners if old else {})

    def drop(self, document: Object) -> None:
        """Delete an object if it exists."""
        with self.changed:
            metadata = document["metadata"]
            key = self.key(self.resource_of(document), metadata.get("namespace", "default"), metadata["name"])
            if record := self.records.get(key):
                self.delete(record, {})

    def read(self, plural: str, name: str, namespace: str = "default") -> Object | None:
        """An object, or None."""
        with self.changed:
            record = self.records.get(self.key(self.resource(plural), namespace, name))
            return copy.deepcopy(record.document) if record else None

    def all(self, plural: str) -> list[Object]:
        """Every object of a resource, by name."""
        with self.changed:
            found = [record.document for key, record in sorted(self.records.items()) if key[1] == plural]
            return copy.deepcopy(found)

    def without(self, group: str) -> None:
        """Forget a group, as a cluster where its definitions are not installed."""
        self.resources = [resource for resource in self.resources if resource.group != group]

    def compact(self) -> None:
        """Forget all versions before the present one, as etcd does after some minutes."""
        with self.changed:
            self.oldest = self._version

    # For the server.

    def resource(self, plural: str, group: str | None = None) -> Resource:
        found = [r for r in self.resources if r.plural == plural and group in (None, r.group)]
        if not found and group is not None and all(r.group != group for r in self.resources):
            raise NoSuchGroup
        if not found:
            raise unknown_path()
        return found[0]

    def resource_of(self, document: Object) -> Resource:
        group = document["apiVersion"].rpartition("/")[0]
        return next(r for r in self.resources if r.group == group and r.kind == document["kind"])

    def key(self, resource: Resource, namespace: str, name: str) -> Key:
        return resource.group, resource.plural, namespace if resource.namespaced else "", name

    @property
    def version(self) -> str:
        return str(self._version)

    def get(self, resource: Resource, namespace: str, name: str) -> Record:
        record = self.records.get(self.key(resource, namespace, name))
        if record is None:
            raise not_found(resource, name)
        return record

    def select(self, resource: Resource, namespace: str, labels: str, fields: str) -> list[Object]:
        """Objects that match both selectors, in the order of namespace and name; no namespace: of all."""
        return [
            record.document
            for key, record in sorted(self.records.items())
            if key[:2] == (resource.group, resource.plural)
            and (not namespace or key[2] == namespace)
            and matches(record.document, labels, fields)
        ]

    def create(self, resource: Resource, namespace: str, body: Object, manager: str, *, dry_run: bool) -> Object:
        new = self._typed(resource, body, None)
        metadata = new.setdefault("metadata", {})
        if metadata.get("generateName") and not metadata.get("name"):
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        key = self.key(resource, namespace, metadata.get("name", ""))
        if key in self.records:
            raise already_exists(resource, key[3])
        if metadata.get("resourceVersion"):
            raise invalid(resource, key[3], "metadata.resourceVersion: must not be set on objects to be created")
        if resource.status:
            new.pop("status", None)
        self._check(resource, key, new)
        metadata.update(_kept(None))
        if resource.namespaced:
            metadata["namespace"] = namespace
        owners = server_apply.updated(resource, {}, new, {}, manager)
        return self._commit(resource, key, None, new, owners, dry_run=dry_run)

    def change(
        self,
        record: Record,
        body: Object,
        subresource: str,
        *,
        manager: str = "",
        owners: Owners | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Put a new state in the place of an old one; ``owners`` are given by apply, else ``manager`` did it."""
        resource, old = record.resource, record.document
        name = old["metadata"]["name"]
        expected_version = body.get("metadata", {}).get("resourceVersion")
        if expected_version and expected_version != old["metadata"]["resourceVersion"]:
            raise conflict(resource, name)
        new = self._typed(resource, body, old)
        if subresource == "status":
            new = {**copy.deepcopy(old), "status": new.get("status")}
        elif resource.status:
            new.pop("status", None)
            new |= {"status": copy.deepcopy(old["status"])} if "status" in old else {}
        new["metadata"] = {**new.get("metadata", {}), **_kept(old)}
        key = self.key(resource, old["metadata"].get("namespace", ""), name)
        self._check(resource, key, new, old)
        if owners is None:
            owners = server_apply.updated(resource, old, new, record.owners, manager)
        return self._commit(resource, key, record, new, owners, dry_run=dry_run)

    def delete(self, record: Record, options: Object, *, dry_run: bool = False) -> Object:
        """Remove an object, or only mark it while it has finalizers; what it owned goes too, unless orphaned."""
        resource, document = record.resource, record.document
        metadata = document["metadata"]
        for name, value in (options.get("preconditions") or {}).items():
            if metadata.get(name) != value:
                raise other_object(resource, metadata["name"], f"Precondition failed: {name} in precondition: {value}")
        if dry_run:
            return document
        key = self.key(resource, metadata.get("namespace", ""), metadata["name"])
        if metadata.get("finalizers"):
            marked = copy.deepcopy(document)
            marked["metadata"].setdefault("deletionTimestamp", _now())
            return self._commit(resource, key, record, marked, record.owners)
        self._remove(key, record, orphan=options.get("propagationPolicy") == "Orphan")
        return document

    def changes(self, since: int) -> Iterator[Change]:
        """Return the events after a version.

        Raises:
            Refused: 410 when that is too long ago to be known.
        """
        if since < self.oldest:
            raise expired()
        return iter([change for change in self.history if change.version > since])

    def _typed(self, resource: Resource, body: Object, old: Object | None) -> Object:
        """Return a copy of the sent object with the metadata of the cluster; built-in kinds can omit their type."""
        typed = {} if resource.custom else {"apiVersion": resource.api_version, "kind": resource.kind}
        new: Object = typed | copy.deepcopy(body)
        if not resource.custom:
            gates.image_volumes(self.image_volumes, new, old)
        if resource.kind in ("ConfigMap", "Secret") and not new.get("data"):
            new.pop("data", None)  # as Go's omitempty
        return new

    def _check(self, resource: Resource, key: Key, new: Object, old: Object | None = None) -> None:
        namespace, name = key[2:]
        if not NAME.fullmatch(name):
            raise invalid(resource, name, f"metadata.name: Invalid value: {name!r}")
        if new.get("kind") != resource.kind or new.get("apiVersion", "").rpartition("/")[0] != resource.group:
            what = f"the object ({new.get('apiVersion')} {new.get('kind')}) is no {resource.qualified}"
            raise Refused(400, "BadRequest", what)
        if resource.namespaced and self.read("namespaces", namespace) is None:
            raise not_found(self.resource("namespaces", ""), namespace)
        for label, value in (new["metadata"].get("labels") or {}).items():
            if not isinstance(value, str) or not LABEL.fullmatch(value):
                raise invalid(resource, name, f"metadata.labels: Invalid value: {value!r} of {label}")
        for plural, path in IMMUTABLE:
            if old and plural == resource.plural and _at(old, path) != _at(new, path):
                raise invalid(resource, name, f"{path}: Invalid value: field is immutable")

    def _commit(
        self,
        resource: Resource,
        key: Key,
        old: Record | None,
        new: Object,
        owners: Owners,
        *,
        dry_run: bool = False,
    ) -> Object:
        with self.changed:
            before = old.document if old else None
            if before is not None and _same(before, new):
                if old is not None and not dry_run:
                    old.owners = owners
                return before
            metadata = new["metadata"]
            if resource.has_generation and (before is None or _body(before, resource) != _body(new, resource)):
                metadata["generation"] = metadata.get("generation", 0) + 1
            metadata["managedFields"] = server_apply.managed_fields(resource, owners)
            if dry_run:
                return new
            self._version += 1
            metadata["resourceVersion"] = str(self._version)
            if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
                self._remove(key, Record(resource, new), orphan=False)
                return new
            self.records[key] = Record(resource, new, owners)
            self._tell(Change(self._version, resource, before, new))
            return new

    def _remove(self, key: Key, record: Record, *, orphan: bool) -> None:
        with self.changed:
            del self.records[key]
            self._version += 1
            last = copy.deepcopy(record.document)
            last["metadata"]["resourceVersion"] = str(self._version)
            self._tell(Change(self._version, record.resource, last, None))
            for other in list(self.records.values()):
                metadata = other.document["metadata"]
                if record.resource.kind == "Namespace" and metadata.get("namespace") == key[3]:
                    self.delete(other, {})
                    continue
                owners = metadata.get("ownerReferences") or []
                rest = [owner for owner in owners if owner.get("uid") != record.document["metadata"]["uid"]]
                if len(rest) == len(owners):
                    continue
                if rest or orphan:
                    kept = copy.deepcopy(other.document)
                    kept["metadata"]["ownerReferences"] = rest
                    self._commit(other.resource, _key_of(self, other), other, kept, other.owners)
                elif _key_of(self, other) in self.records:
                    self.delete(other, {})

    def _tell(self, change: Change) -> None:
        self.history.append(change)
        self.changed.notify_all()
        kind = "DELETED" if change.after is None else "ADDED" if change.before is None else "MODIFIED"
        self._todo.append((kind, copy.deepcopy(change.after or change.before or {})))
        if self._controlling:
            return
        self._controlling = True
        try:
            while self._todo:
                event = self._todo.pop(0)
                for controller in list(self.controllers):
                    controller(*event)
        finally:
            self._controlling = False


def _kept(old: Object | None) -> Object:
    """Metadata that the server alone writes."""
    if old is None:
        return {"uid": str(uuid.uuid4()), "creationTimestamp": _now()}
    names = ("uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp", "namespace", "name")
    return {name: old["metadata"][name] for name in names if name in old["metadata"]}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _key_of(store: Store, record: Record) -> Key:
    metadata = record.document["metadata"]
    return store.key(record.resource, metadata.get("namespace", ""), metadata["name"])


def _body(document: Object, resource: Resource) -> Object:
    left_out = {"metadata", "status"} if resource.status else {"metadata"}
    return {key: value for key, value in document.items() if key not in left_out}


def _same(one: Object, other: Object) -> bool:
    def plain(document: Object) -> Object:
        own = ("resourceVersion", "managedFields", "generation")
        metadata = {key: value for key, value in document["metadata"].items() if key not in own}
        return {**document, "metadata": metadata}

    return plain(one) == plain(other)


def _at(document: Object, path: str) -> Any:
    value: Any = document
    for word in path.split("."):
        value = (value or {}).get(word)
    return value
