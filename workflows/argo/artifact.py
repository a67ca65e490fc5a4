"""Locations of artifacts (Argo: ``ArtifactLocation.HasLocationOrKey``)."""

from __future__ import annotations

from urllib.parse import urlsplit

from workflows.argo.document import Value, section

LOCATIONS = ("artifactory", "azure", "git", "gcs", "hdfs", "http", "oss", "raw", "s3", "plugin")
"""Fields with a location, in the order in which Argo looks for one."""
_KEYS = {"azure": "blob", "gcs": "key", "hdfs": "path", "oss": "key", "s3": "key", "plugin": "key"}


def has_location(artifact: Value) -> bool:
    """Return True if an artifact has a complete location, or a key in the artifact repository."""
    kind = next((name for name in LOCATIONS if isinstance(artifact.get(name), dict)), "")
    location = section(artifact, kind)
    if kind == "raw":
        return True
    if kind == "git":
        return bool(location.get("repo"))
    if kind == "http":
        return bool(location.get("url"))
    if kind == "artifactory":
        return bool(location.get("url") and (location.get("usernameSecret") or urlsplit(str(location["url"])).path))
    if kind == "hdfs" and location.get("addresses"):
        return True
    return bool(kind and location.get(_KEYS[kind]))
