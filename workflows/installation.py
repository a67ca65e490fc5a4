"""Are ``workflows``, ``steps`` and ``presets`` ours? The names are generic, and other distributions use them too.

Known: ``llama-index-workflows`` installs a top-level ``workflows``, the ``presets`` distribution a top-level
``presets``. Whichever comes first on ``sys.path`` wins, and then argotune would run somebody else's code.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from workflows.errors import ArgotuneError

OURS = Path(__file__).resolve().parent.parent
PACKAGES = ("workflows", "steps", "presets")


def check() -> None:
    """Make sure that the three packages share one parent folder; looks, imports nothing.

    Raises:
        ArgotuneError: naming every package that comes from elsewhere, the distribution that brings it, and the line
            that removes it.
    """
    shadows = {name: place for name in PACKAGES if (place := _parent(name)) != OURS}
    if shadows:
        raise ArgotuneError("\n".join(_complaint(name, place) for name, place in shadows.items()))


def _parent(package: str) -> Path | None:
    """Folder from which Python would import ``package``; None when it would find nothing."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    place = next(iter(spec.submodule_search_locations or []), spec.origin)
    return Path(str(place)).resolve().parent


def _complaint(package: str, place: Path | None) -> str:
    if place is None:
        return (
            f"the package '{package}' of argotune is missing\n    fix: install argotune again, in its own environment"
        )
    what = f"the package '{package}' comes from {place}, not from argotune in {OURS}"
    distribution = _distribution(package, place)
    if distribution:
        own = "or give argotune an environment of its own"
        return f"{what}: {distribution} installs one of the same name\n    fix: pip uninstall {distribution}   ({own})"
    return f"{what}\n    fix: start argotune from another folder, or take {place} off PYTHONPATH"


def _distribution(package: str, place: Path) -> str:
    """Name of the distribution that installs ``package`` into ``place``; empty when none owns it."""
    import importlib.metadata  # slow, and only needed for the complaint

    for name in importlib.metadata.packages_distributions().get(package, []):
        if Path(str(importlib.metadata.distribution(name).locate_file(""))).resolve() == place:
            return name
    return ""
