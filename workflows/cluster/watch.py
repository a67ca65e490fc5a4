"""Changes of Workflows as they happen, across lost connections.

As in the Kubernetes API concepts ("Efficient detection of changes"): list, watch from the version of the list,
continue from the last version after a disconnect, list again when the server no longer has it (410).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

from steps.runtime.retry import Backoff
from workflows.cluster.backoff import new_backoff
from workflows.cluster.failures import ApiFailure
from workflows.cluster.workflows_api import Document, Event, Scope, Workflows
from workflows.errors import ArgotuneError

MAX_DISCONNECTED_SECONDS = 900.0
"""Watching ends after this time without contact; the run continues."""
WATCH_SECONDS = 290
"""Length of one watch; load balancers cut idle connections after about five minutes."""
CONTROLLER_SECONDS = 45
"""A run that no controller has seen after this time causes a message."""
ENDED = ("Succeeded", "Failed", "Error")


class Deleted(ArgotuneError):
    """The watched run was deleted."""


def follow(
    api: Workflows, name: str, on_message: Callable[[str], None], backoff: Backoff | None = None
) -> Iterator[Document]:
    """Yield the states of a run until it has ended; ``on_message`` receives messages for the user.

    Raises:
        ApiFailure: the run does not exist, watching is not allowed, or contact is lost for too long.
        Deleted: the run was deleted.
    """
    workflow = api.get(name)
    yield workflow
    if phase(workflow) in ENDED:
        return
    is_reported = False
    for event in watch_changes(api, Scope(name), on_message, backoff, seconds=CONTROLLER_SECONDS, known=[workflow]):
        if event.kind == "DELETED":
            raise Deleted(f"{name} was deleted while it was watched")
        if event.kind == "IDLE":
            if not phase(workflow) and not is_reported:
                is_reported = True
                on_message(
                    f"{name}: no controller has seen it for {CONTROLLER_SECONDS} s; check that Argo's "
                    f"workflow-controller is running and watches namespace {api.namespace}"
                )
            continue
        workflow = event.object
        yield workflow
        if phase(workflow) in ENDED:
            return


def phase(workflow: Document) -> str:
    """Return the phase of a Workflow; empty before its controller has seen it."""
    return str((workflow.get("status") or {}).get("phase") or "")


def watch_changes(
    api: Workflows,
    scope: Scope,
    on_message: Callable[[str], None],
    backoff: Backoff | None = None,
    seconds: int = WATCH_SECONDS,
    known: Sequence[Document] = (),
) -> Iterator[Event]:
    """Yield what is not in ``known``, then every change, without end; ``IDLE`` where a watch ended without a change.

    The first watch takes ``seconds``, later ones ``WATCH_SECONDS``.
    """
    backoff = backoff or new_backoff()
    documents = {_key(document): document for document in known}
    version = ""
    is_disconnected = False
    while True:
        try:
            if not version:
                version = yield from _list_changes(api, scope, documents)
            has_changed = False
            for event in api.events(scope, version, seconds):
                version = event.version or version
                backoff.reset()
                if is_disconnected:
                    is_disconnected = False
                    on_message(f"reconnected to {api.server}")
                if event.kind == "BOOKMARK":
                    continue
                has_changed = True
                _update(documents, event)
                yield event
            seconds = WATCH_SECONDS
            if not has_changed:
                yield Event("IDLE", {})
                # Pause, so that a server that ends every watch immediately is not overloaded.
                backoff.pause()
                backoff.reset()
        except ApiFailure as failure:
            if failure.is_expired:
                version = ""
            elif not failure.is_transient:
                raise
            if backoff.failing_seconds() > MAX_DISCONNECTED_SECONDS:
                raise
            waited = backoff.pause(failure.retry_after)
            if waited > 2 and not is_disconnected:
                is_disconnected = True
                on_message(f"{failure.message}; retrying")


def _list_changes(api: Workflows, scope: Scope, known: dict[str, Document]) -> Generator[Event, None, str]:
    """Yield the differences between a new list and ``known``, which is updated; return the version of the list."""
    listing = api.list(scope)
    current = {_key(item): item for item in listing.items}
    for key, item in list(known.items()):
        if key not in current:
            del known[key]
            yield Event("DELETED", item)
    for key, item in current.items():
        if _version(known.get(key)) != _version(item):
            kind = "MODIFIED" if key in known else "ADDED"
            known[key] = item
            yield Event(kind, item)
    return listing.version


def _update(known: dict[str, Document], event: Event) -> None:
    if event.kind == "DELETED":
        known.pop(_key(event.object), None)
    else:
        known[_key(event.object)] = event.object


def _key(document: Document) -> str:
    metadata = document["metadata"]
    return str(metadata.get("uid") or f"{metadata.get('namespace')}/{metadata['name']}")


def _version(document: Document | None) -> str:
    return str(document["metadata"].get("resourceVersion")) if document else ""
