"""Run the evaluate step: ``python -m steps.evaluate --help``."""

from steps.evaluate.settings import Result, Settings
from steps.evaluate.step import evaluate, still_there
from steps.runtime import entrypoint

entrypoint.main(Settings, evaluate, still_there=still_there, result_type=Result)
