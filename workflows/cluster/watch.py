"""Changes of Workflows as they happen, whatever becomes of the connection.

As the Kubernetes API wants it done (API concepts, "Efficient detection of changes"): list, watch from the version of
the list, go on from the last version after a drop, list anew when the server has forgotten it (410).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

from steps.runtime.retry import Backoff
from workflows.cluster.backoff import new_backoff
from workflows.cluster.failures import ApiFailure
from workflows.cluster.workflows_api import Document, Event, Scope, Workflows
from workflows.errors import ArgotuneError

MAX_DISCONNECTED_SECONDS = 900.0
"""Seconds without any contact after which watching ends; the run goes on."""
WATCH = 290
"""Seconds of one watch; balancers cut idle connections off after about five minutes."""
STARTING = 45
"""Seconds after which a run that no controller has looked at is worth a word."""
DONE = ("Succeeded", "Failed", "Error")


class Deleted(ArgotuneError):
    """The run that was watched is gone."""


def follow(
    api: Workflows, name: str, tell: Callable[[str], None], backoff: Backoff | None = None
) -> Iterator[Document]:
    """States of a run, from now until it has ended; ``tell`` hears what a person should know.

    Raises:
        ApiFailure: there is no such run, it may not be watched, or contact is lost for long.
        Deleted: it was deleted.
    """
    workflow = api.get(name)
    yield workflow
    if phase(workflow) in DONE:
        return
    told = False
    for event in changes(api, Scope(name), tell, backoff, seconds=STARTING, there=[workflow]):
        if event.kind == "DELETED":
            raise Deleted(f"{name} was deleted while it was watched")
        if event.kind == "IDLE":
            if not phase(workflow) and not told:
                told = True
                tell(
                    f"{name}: no controller has looked at it for {STARTING} s; is Argo's workflow-controller running, "
                    f"and does it watch namespace {api.namespace}?"
                )
            continue
        workflow = event.object
        yield workflow
        if phase(workflow) in DONE:
            return


def phase(workflow: Document) -> str:
    """The phase of a Workflow; empty before its controller has looked at it."""
    return str((workflow.get("status") or {}).get("phase") or "")


def changes(
    api: Workflows,
    scope: Scope,
    tell: Callable[[str], None],
    backoff: Backoff | None = None,
    seconds: int = WATCH,
    there: Sequence[Document] = (),
) -> Iterator[Event]:
    """All that is there and not known yet, then every change, without end; ``IDLE`` where a watch ended without any.

    The first watch takes ``seconds``, later ones longer.
    """
    backoff = backoff or new_backoff()
    known = {_key(document): document for document in there}
    version = ""
    lost = False
    while True:
        try:
            if not version:
                version = yield from _listed(api, scope, known)
            heard = False
            for event in api.events(scope, version, seconds):
                version = event.version or version
                backoff.reset()
                if lost:
                    lost = False
                    tell(f"{api.place} answers again")
                if event.kind == "BOOKMARK":
                    continue
                heard = True
                _remember(known, event)
                yield event
            seconds = WATCH
            if not heard:
                yield Event("IDLE", {})
                # Not at once: a server that ends every watch is not to be overrun.
                backoff.pause()
                backoff.reset()
        except ApiFailure as failure:
            if failure.gone:
                version = ""
            elif not failure.transient:
                raise
            if backoff.failing_seconds() > MAX_DISCONNECTED_SECONDS:
                raise
            waited = backoff.pause(failure.retry_after)
            if waited > 2 and not lost:
                lost = True
                tell(f"{failure.message}; trying again until it answers")


def _listed(api: Workflows, scope: Scope, known: dict[str, Document]) -> Generator[Event, None, str]:
    """What a new list says that was not known; gives its version."""
    listing = api.list(scope)
    there = {_key(item): item for item in listing.items}
    for key, item in list(known.items()):
        if key not in there:
            del known[key]
            yield Event("DELETED", item)
    for key, item in there.items():
        if _version(known.get(key)) != _version(item):
            kind = "MODIFIED" if key in known else "ADDED"
            known[key] = item
            yield Event(kind, item)
    return listing.version


def _remember(known: dict[str, Document], event: Event) -> None:
    if event.kind == "DELETED":
        known.pop(_key(event.object), None)
    else:
        known[_key(event.object)] = event.object


def _key(document: Document) -> str:
    metadata = document["metadata"]
    return str(metadata.get("uid") or f"{metadata.get('namespace')}/{metadata['name']}")


def _version(document: Document | None) -> str:
    return str(document["metadata"].get("resourceVersion")) if document else ""
