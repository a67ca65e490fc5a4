"""Run the preflight step: ``python -m steps.preflight --help``."""

from steps.preflight.settings import Settings
from steps.preflight.step import preflight
from steps.runtime import entrypoint

entrypoint.main(Settings, preflight)
