"""Run the tune step: ``python -m steps.tune --help``."""

from steps.runtime import entrypoint
from steps.tune.settings import Result, Settings
from steps.tune.step import outputs_intact, tune

entrypoint.main(Settings, tune, outputs_intact=outputs_intact, result_type=Result)
