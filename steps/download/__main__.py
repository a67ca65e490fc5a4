"""Run the download step: ``python -m steps.download --help``."""

from steps.download.settings import Result, Settings
from steps.download.step import download, outputs_intact
from steps.runtime import entrypoint

entrypoint.main(Settings, download, outputs_intact=outputs_intact, result_type=Result)
