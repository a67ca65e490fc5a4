"""Run the prune step: ``python -m steps.prune --help``."""

from steps.prune.settings import Settings
from steps.prune.step import prune
from steps.runtime import entrypoint

entrypoint.main(Settings, prune)
