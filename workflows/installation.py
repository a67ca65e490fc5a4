"""Check that the packages ``workflows``, ``steps`` and ``presets`` are argotune's.

The names are generic: ``llama-index-workflows`` also installs ``workflows``, and the ``presets`` distribution
``presets``. Python imports the first match on ``sys.path``, which would run foreign code.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from workflows.errors import ArgotuneError

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("workflows", "steps", "presets")


def check() -> None:
    """Check that the three packages have one parent folder; imports none of them.

    Raises:
        ArgotuneError: naming each foreign package, its distribution, and the command that removes it.
    """
    shadows = {name: parent for name in PACKAGES if (parent := _parent(name)) != ROOT}
    if shadows:
        raise ArgotuneError("\n".join(_message(name, parent) for name, parent in shadows.items()))


def _parent(package: str) -> Path | None:
    """Return the folder from which Python would import ``package``; None if it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    path = next(iter(spec.submodule_search_locations or []), spec.origin)
    return Path(str(path)).resolve().parent


def _message(package: str, parent: Path | None) -> str:
    if parent is None:
        return f"argotune's package '{package}' is missing\n    fix: reinstall argotune in a separate environment"
    message = f"the package '{package}' comes from {parent}, not from argotune in {ROOT}"
    distribution = _distribution(package, parent)
    if distribution:
        fix = f"pip uninstall {distribution}   (or install argotune in a separate environment)"
        return f"{message}: {distribution} installs a package of the same name\n    fix: {fix}"
    return f"{message}\n    fix: start argotune from another folder, or remove {parent} from PYTHONPATH"


def _distribution(package: str, parent: Path) -> str:
    """Return the name of the distribution that installs ``package`` into ``parent``; empty if there is none."""
    import importlib.metadata  # slow, and only needed for the message

    for name in importlib.metadata.packages_distributions().get(package, []):
        if Path(str(importlib.metadata.distribution(name).locate_file(""))).resolve() == parent:
            return name
    return ""
