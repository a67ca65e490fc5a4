"""Run the promote step: ``python -m steps.promote --help``."""

from steps.promote.settings import Result, Settings
from steps.promote.step import outputs_intact, promote
from steps.runtime import entrypoint

entrypoint.main(Settings, promote, outputs_intact=outputs_intact, result_type=Result)
