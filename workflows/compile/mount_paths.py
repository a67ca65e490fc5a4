"""Mount paths and names of the volumes of a run, without Hera, for commands that build settings but no Workflow."""

from __future__ import annotations

from dataclasses import dataclass

WORK = "/mnt/work"
SCRATCH = "/mnt/scratch"
DATA = "/mnt/data"
OUTPUT = "/mnt/output"
PULL_SECRET = "/mnt/pull-secret"
PUSH_SECRET = "/mnt/push-secret"
ADAPTER_SECRET = "/mnt/adapter-secret"
MODEL_SECRET = "/mnt/model-secret"
API_KEYS = "/mnt/api-keys"


@dataclass(frozen=True)
class WorkPaths:
    """Paths of tune and evaluate in the work volume: its root, or a directory for each candidate."""

    dataset: str = "dataset"
    """Directory of the rows."""
    candidates: bool = False
    """Train several adapters to choose from; templates have the input ``candidate``, the name of its directory."""

    @property
    def inputs(self) -> list[str]:
        """Template inputs that the paths contain."""
        return ["candidate"] if self.candidates else []

    @property
    def settings(self) -> dict[str, str]:
        """The paths as settings of a step."""
        work = f"{WORK}/candidates/{{{{inputs.parameters.candidate}}}}" if self.candidates else WORK
        rows = f"{WORK}/{self.dataset}"
        return {"work": work, **({"dataset": rows} if rows != f"{work}/dataset" else {})}


AT_ROOT = WorkPaths()


def input_volume(name: str) -> str:
    """Return the name of the volume of a named input."""
    return f"input-{name}"


def input_path(name: str) -> str:
    """Return the mount path of that volume."""
    return f"/mnt/input/{name}"


def adapter_volume(name: str) -> str:
    """Return the name of the volume with an adapter to serve."""
    return f"adapter-{name}"


def adapter_path(name: str) -> str:
    """Return the mount path of that volume; the server's name of the adapter is its last part."""
    return f"/mnt/adapter/{name}"
