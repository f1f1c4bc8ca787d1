"""What the user sees while something takes long: one line a step, with the time it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

console = Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """Print one line of progress to stderr, so that stdout stays free for what a script wants to read."""
    console.print(message, markup=False, soft_wrap=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print ``title … 1.2 s`` around a piece of work; says so when it failed."""
    started = time.monotonic()
    console.print(f"• {title} …", end="", markup=False)
    try:
        yield
    except BaseException:
        console.print(" failed", markup=False)
        raise
    console.print(f" {time.monotonic() - started:.1f} s", markup=False)
