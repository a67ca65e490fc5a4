"""Run the tune step: ``python -m steps.tune --help``."""

from steps.runtime import entrypoint
from steps.tune.settings import Result, Settings
from steps.tune.step import still_there, tune

entrypoint.main(Settings, tune, still_there=still_there, result_type=Result)
