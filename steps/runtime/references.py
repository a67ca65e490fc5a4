"""Text for arguments of pods, in which Kubernetes replaces ``$(NAME)`` by a variable of the container."""

from __future__ import annotations


def without_references(text: str) -> str:
    """Return a text in which Kubernetes finds no ``$(NAME)``, as it can become an argument of a later pod.

    Outputs and messages contain texts of registries, files and servers, and a pod's variables can be credentials.
    """
    return text.replace("$(", "$ (")
