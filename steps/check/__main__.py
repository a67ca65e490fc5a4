"""Run the check step: ``python -m steps.check --help``."""

from steps.check.settings import Settings
from steps.check.step import check
from steps.runtime import entrypoint

entrypoint.main(Settings, check)
