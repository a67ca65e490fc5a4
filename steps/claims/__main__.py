"""Run the claims step: ``python -m steps.claims --help``."""

from steps.claims.settings import Settings
from steps.claims.step import claims
from steps.runtime import entrypoint

entrypoint.main(Settings, claims)
