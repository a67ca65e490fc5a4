"""Run the dryrun step: ``python -m steps.dryrun --help``."""

from steps.dryrun.settings import Settings
from steps.dryrun.step import dryrun
from steps.runtime import entrypoint

entrypoint.main(Settings, dryrun)
