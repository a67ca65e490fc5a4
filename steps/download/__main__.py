"""Run the download step: ``python -m steps.download --help``."""

from steps.download.settings import Result, Settings
from steps.download.step import download, still_there
from steps.runtime import entrypoint

entrypoint.main(Settings, download, still_there=still_there, result_type=Result)
