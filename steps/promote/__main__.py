"""Run the promote step: ``python -m steps.promote --help``."""

from steps.promote.settings import Result, Settings
from steps.promote.step import promote, still_there
from steps.runtime import entrypoint

entrypoint.main(Settings, promote, still_there=still_there, result_type=Result)
