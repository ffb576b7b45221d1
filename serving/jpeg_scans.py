"""How many scans a JPEG has, without decoding it.

A progressive JPEG is decoded scan by scan, each over the whole picture: some kilobytes of empty scans take minutes.
"""

import re

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# A length follows these, but for the end of the image. The decoder passes over any other byte on its way to them.
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
# So many take some 50 ms to count; a photograph has some hundreds.
_MAX_SEGMENTS = 100_000


def count_scans(encoded: bytes, most: int) -> int:
    """The scans of a file's first picture, or more, never fewer than libjpeg finds in it, however damaged it is.

    Args:
        most: Counting ends one beyond. A file of more segments than any photograph has counts as that.
    """
    position, scans = 2, 0
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(encoded, position)
        if found is None or found[1][0] == _END_OF_IMAGE:
            return scans
        scans += found[1][0] == _START_OF_SCAN
        if scans > most:
            return scans
        position = found.end() + int.from_bytes(encoded[found.end() : found.end() + 2])
    return most + 1
