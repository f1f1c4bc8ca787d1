"""A group whose commands are imported when they are used: completion asks at every key, and clients load slowly."""

import importlib
from collections.abc import Mapping

import click


class LazyGroup(click.Group):
    """`lazy`: name of a command → `module:attribute`."""

    lazy: Mapping[str, str] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = self.lazy.get(cmd_name)
        if place is None:
            return super().get_command(ctx, cmd_name)
        module, _, name = place.partition(":")
        found: click.Command = getattr(importlib.import_module(module), name)
        return found
