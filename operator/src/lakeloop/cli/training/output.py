"""What commands print: tables for people, documents for programs, errors in one sentence."""

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import yaml
from rich.console import Console
from rich.markup import escape

from lakeloop.cli.errors import CliError
from lakeloop.cli.training.tables import Column, Row, plain, render

P = ParamSpec("P")
API_VERSION = "cli.lakeloop.io/v1alpha1"
console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def width() -> int | None:
    """Characters of the terminal's line; None where the output goes elsewhere and must not be cut."""
    return console.width if console.is_terminal else None


def table(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Prints a table that fits."""
    for line in render(columns, rows, width()):
        console.print(escape(line))


def document(kind: str, content: Mapping[str, Any], form: str) -> None:
    """Prints one document as JSON or YAML."""
    whole = {"apiVersion": API_VERSION, "kind": kind, **content}
    text = json.dumps(whole, indent=2) if form == "json" else yaml.safe_dump(whole, sort_keys=False).rstrip()
    # Not by the console: it would take what is in brackets for markup, and wrap.
    print(text)


def documents(kind: str, items: Sequence[Mapping[str, Any]], form: str) -> None:
    """Prints a list."""
    document(kind, {"items": list(items)}, form)


def fields(pairs: Sequence[tuple[str, str]]) -> None:
    """Prints names and values, values under one another; what has no value is left out."""
    shown = [(name, value) for name, value in pairs if value]
    widest = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        first, *rest = map(plain, value.splitlines())
        console.print(escape(f"{name.ljust(widest)}  {first}"))
        for line in rest:
            console.print(escape(f"{' ' * widest}  {line}"))


def note(text: str) -> None:
    """Says something beside the output, on standard error."""
    errors.print(escape(text))


def in_one_sentence(command: Callable[P, None]) -> Callable[P, None]:
    """A CliError ends the process with its message and exit code 1, an interruption with 130."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except CliError as error:
            errors.print(f"[bold red]Error:[/] {escape(str(error))}")
            sys.exit(1)
        except KeyboardInterrupt:
            errors.print("\nInterrupted.")
            sys.exit(130)
        except BrokenPipeError:
            sys.exit(0)

    return wrapped
