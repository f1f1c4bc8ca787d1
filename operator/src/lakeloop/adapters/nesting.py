"""How deeply nested JSON may be for Python to read it."""

import sys
from typing import Final

API_SERVER: Final = 10_000
"""Levels that the API server stores, where a schema leaves the shape open (`params`, `template`)."""
PER_LEVEL: Final = 3
"""Calls that reading and copying a level takes at most."""


def take_what_the_api_server_takes() -> None:
    """Raises Python's limit of 1,000 calls.

    One object that could not be read would end the watch of all, and the operator with it. 30,000 levels of the JSON
    decoder need less than the 8 MiB of stack that a main thread has. What is too deep for us is refused by the types.
    """
    sys.setrecursionlimit(max(sys.getrecursionlimit(), API_SERVER * PER_LEVEL))
