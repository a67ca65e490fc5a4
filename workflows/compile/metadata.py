"""Labels, title and description of a run, for the lists of the Argo UI, argo and kubectl.

The UI shows title and description as Markdown and cuts both, so what differs between runs comes first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import presets
from steps.runtime.shown_url import shown
from workflows.estimate import estimate
from workflows.estimate.trials import tune_hours
from workflows.plan.model import Plan
from workflows.plan.nodes import gpu_nodes
from workflows.runs.gpu_time import NODES
from workflows.runs.status import TUNE_SECONDS
from workflows.spec.search import trials

HUB = "https://huggingface.co"
MAX_URLS = 3
"""Data files that a description names."""
_REVISION = re.compile(r"[0-9a-f]{40}")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?")


def labels(plan: Plan) -> dict[str, str]:
    """Return the labels of a Workflow: the user's, and those to select runs by."""
    own = {
        "app.kubernetes.io/managed-by": "argotune",
        "argotune.dev/workspace": plan.name,
        "argotune.dev/preset": plan.model.preset,
        "argotune.dev/method": plan.tuning.method if plan.tuning else "",
    }
    return {**plan.labels, **{name: value for name, value in own.items() if _LABEL_VALUE.fullmatch(value)}}


def title_and_description(plan: Plan) -> dict[str, str]:
    """Return the annotations of a Workflow."""
    parts = [_base(plan), _data(plan), _gpus(plan), _price(plan)]
    return {
        "workflows.argoproj.io/title": f"{plan.name}: {_kind(plan)}",
        "workflows.argoproj.io/description": ", ".join(filter(None, parts)),
        **_tune_seconds(plan),
        **_gpu_nodes(plan),
    }


def _kind(plan: Plan) -> str:
    if plan.tuning:
        search = f", search of {len(trials(plan.search))} trials" if plan.search else ""
        return f"{plan.tuning.method} of {plan.model.preset}{search}"
    return f"serve {plan.model.preset or 'a custom pod'}"


def _base(plan: Plan) -> str:
    """Return the base model, with a link to its revision if it is on the hub."""
    model = plan.model
    if not model.repository:
        return "no base model"
    is_on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", model.repository) is not None
    revision = f" at {model.revision[:7]}" if _REVISION.fullmatch(model.revision) else ""
    url = f"{HUB}/{model.repository}/tree/{quote(model.revision, safe='')}"
    return f"{_link(model.repository, url) if is_on_hub else _escape(model.repository)}{revision}"


def _data(plan: Plan) -> str:
    data = plan.data
    if data is None:
        return ""
    places = [*_places(data.urls, data.image, data.volume)]
    for named in data.inputs:
        places += _places(named.urls, named.image, named.volume_source)
    hidden = len(places) - MAX_URLS
    names = [*places[:MAX_URLS], *([f"{hidden} more"] if hidden > 0 else [])]
    return f"data {' + '.join(names)}"


def _places(urls: list[str], image: str, volume: dict[str, object] | None) -> Iterator[str]:
    for url in urls:
        # Without values of the query, which can grant access.
        location = shown(url).partition("?")[0]
        yield _link(location.rstrip("/").rpartition("/")[2] or location, location)
    if image:
        yield _escape(image)
    for kind, source in (volume or {}).items():
        fields = source if isinstance(source, dict) else {}
        name = next((fields[key] for key in ("claimName", "name", "secretName") if fields.get(key)), "")
        yield _escape(f"{kind} {name}".rstrip())


def _gpus(plan: Plan) -> str:
    resource = plan.resource
    nodes = f"{resource.count} nodes of " if resource.count > 1 else ""
    try:
        sku = presets.find_sku(resource.instance_type)
    except presets.UnknownSku:
        sku = None
    gpu = sku.gpu if sku else resource.gpu_resource
    gpus = f"{resource.gpus} x {gpu}" if resource.gpus else "CPU"
    return f"{nodes}{gpus}{f' ({resource.instance_type})' if resource.instance_type else ''}"


def _price(plan: Plan) -> str:
    """Return the estimated price of the GPU nodes, by list prices; empty if it is unknown."""
    if not plan.model.preset:
        return ""
    estimated = estimate(plan)
    total = estimated.max_cost(estimated.time.total_hours if estimated.time else None)
    if total is not None:
        return f"at most {total:.2f} USD"
    return "" if estimated.hourly is None else f"{estimated.hourly * estimated.nodes:.2f} USD/hour"


def _tune_seconds(plan: Plan) -> dict[str, str]:
    """Return the estimated time of the training, by which ``argotune ls`` weights the progress of its steps."""
    time = estimate(plan).time if plan.model.preset and plan.tuning else None
    hours = time.training_hours if time else None
    return {TUNE_SECONDS: str(round(3600 * tune_hours(plan, hours)))} if hours else {}


def _gpu_nodes(plan: Plan) -> dict[str, str]:
    """Return what the run pays for, by which ``argotune status`` splits its GPU time."""
    if not plan.tuning:
        return {}
    return {NODES: json.dumps(gpu_nodes(plan).as_values())}


def _link(text: str, url: str) -> str:
    """Return a Markdown link; only the text if browsers cannot open the address."""
    if urlsplit(url).scheme not in ("http", "https"):
        return _escape(url)
    return f"[{_escape(text)}]({quote(url, safe='%/:?=&@+,;~.-_!')})"


def _escape(text: str) -> str:
    """Return text without the characters that Markdown and Argo's placeholders read."""
    return re.sub(r"[\[\]<>*`|{}\\]", "", " ".join(text.split()))
