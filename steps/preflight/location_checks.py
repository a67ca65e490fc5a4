"""Check of a dataset of the hub, or a folder of an object store: its list of files, and the start of the first one."""

from __future__ import annotations

from steps.data.formats import compressed, content, file_names
from steps.data.locations.find import find_files
from steps.data.locations.location import InvalidLocation, parse
from steps.data.locations.object_store import ObjectReaders
from steps.runtime import hosts
from steps.runtime.errors import BadInput, StepError, TransientError
from steps.runtime.retry import RetryPolicy, Sleep, retry_call


def check_location(
    text: str, pattern: str, retry: RetryPolicy, *, allow_private: bool, wait: Sleep
) -> str | StepError:
    """Return a sentence about the files, or the error of an unreachable server.

    The start of a file is read because listing and reading can need different permissions.

    Raises:
        BadInput: nothing there, no access, or the format is not supported.
    """
    try:
        location, _ = parse(text)
    except InvalidLocation as error:
        return BadInput(f"{hosts.shown(text)}: {error}", error.fix)
    with ObjectReaders() as readers:
        try:
            found = retry_call(lambda: find_files(location, readers, allow_private, pattern), retry, sleep=wait)
            first = found.files[0]
            start, _ = retry_call(lambda: first.read_range(0, content.HEAD), retry, sleep=wait)
        except TransientError as error:
            return StepError(f"{location.shown}: {error.message}", "check that the server is running and reachable")
    if not start:
        return BadInput(f"{first.shown}: the file is empty", "check the location")
    is_compressed = compressed.compression_of(start)
    file_format = file_names.parse_name(first.shown)[0] if is_compressed else content.check_start(first.shown, start)
    kind = f" ({content.NAMES[file_format]})" if file_format else ""
    count = len(found.files)
    return f"{location.shown} has {count} data file{'s' * (count > 1)}{kind}, which can be read"
