"""A JSON object with typed access, and the failure that names where it is wrong."""

from __future__ import annotations

from typing import Any

from lakeloop_trainer.failures import RunFailure


def invalid(path: str, message: str) -> RunFailure:
    """What is said of a part of the run spec; the field where it is one of the user's."""
    return RunFailure("InvalidConf", f"{path} {message}", path if path.startswith("spec") else None)


class Node:
    """A JSON object with typed access; what is missing or of the wrong type is an InvalidConf with its path."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise invalid(path or "the run spec", "must be a JSON object")
        self._value: dict[str, Any] = value
        self._path = path

    def get(self, key: str, default: object = None) -> Any:
        return self._value.get(key, default)

    def _at(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not value:
            raise invalid(self._at(key), "must be a string that is not empty")
        return value

    def optional_text(self, key: str) -> str | None:
        return None if self._value.get(key) is None else self.text(key)

    def integer(self, key: str) -> int:
        value = self._value.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise invalid(self._at(key), "must be an integer")
        return value

    def optional_integer(self, key: str) -> int | None:
        return None if self._value.get(key) is None else self.integer(key)

    def number(self, key: str, default: float) -> float:
        value = self._value.get(key)
        if value is None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise invalid(self._at(key), "must be a number")
        return float(value)

    def optional_number(self, key: str) -> float | None:
        return None if self._value.get(key) is None else self.number(key, 0.0)

    def optional_names(self, key: str) -> tuple[str, ...] | None:
        found = self.optional_strings(key)
        if found is not None and not all(found):
            raise invalid(self._at(key), "must be a list of names, none of them empty")
        return found

    def optional_strings(self, key: str) -> tuple[str, ...] | None:
        value = self._value.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise invalid(self._at(key), "must be a list of strings")
        return tuple(value)

    def node(self, key: str) -> Node:
        return Node(self._value.get(key), self._at(key))

    def optional(self, key: str) -> Node | None:
        return None if self._value.get(key) is None else self.node(key)

    def nodes(self, key: str) -> list[Node]:
        value = self._value.get(key)
        if not isinstance(value, list):
            raise invalid(self._at(key), "must be a list")
        return [Node(item, f"{self._at(key)}[{index}]") for index, item in enumerate(value)]
