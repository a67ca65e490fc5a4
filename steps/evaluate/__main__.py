"""Run the evaluate step: ``python -m steps.evaluate --help``."""

from steps.evaluate.settings import Result, Settings
from steps.evaluate.step import evaluate, outputs_intact
from steps.runtime import entrypoint

entrypoint.main(Settings, evaluate, outputs_intact=outputs_intact, result_type=Result)
