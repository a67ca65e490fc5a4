"""A Workspace file as typed, checked values with their lines."""

from workflows.spec.load import Manifest, load
from workflows.spec.source import Source

__all__ = ["Manifest", "Source", "load"]
