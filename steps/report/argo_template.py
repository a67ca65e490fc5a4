"""The template that Argo gives to a pod, to find out whether it can upload artifacts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

TEMPLATE_FILE = Path("/var/run/argo/template")
"""Written by Argo's init container for the executor (Argo 3.4 to 4.1: ``common.VarRunArgoPath``)."""
TEMPLATE_VARIABLE = "ARGO_TEMPLATE"
_STORES = {"artifactory", "azure", "gcs", "hdfs", "http", "oss", "plugin", "s3"}


def has_artifact_repository() -> bool:
    """Return True if Argo has a place for the artifacts of this pod; also outside Argo, in the local runner.

    Argo completes the ``archiveLocation`` of a template with artifacts by its repository, if it has one.
    """
    template = _template()
    return template is None or bool(_STORES & (template.get("archiveLocation") or {}).keys())


def _template() -> dict[str, Any] | None:
    """Return the template of this pod; None outside Argo."""
    try:
        text = TEMPLATE_FILE.read_text()
    except OSError:
        text = os.environ.get(TEMPLATE_VARIABLE, "")
    try:
        template = json.loads(text)
    except ValueError:
        return None
    return template if isinstance(template, dict) else None
