"""What cannot be rendered, because the user asks for what cannot be."""

from typing import ClassVar


class Unrenderable(ValueError):
    """`path` is the field, from `spec` on; `reason` is CamelCase and part of the API."""

    reason: ClassVar[str] = "InvalidSpec"

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


class InvalidConf(Unrenderable):
    """A Spark setting that is not the user's to make, or that looks like a secret."""

    reason = "InvalidConf"


class InvalidParameter(Unrenderable):
    """A parameter of an estimator that cannot be read."""

    reason = "InvalidParameter"


class ScriptTooLarge(Unrenderable):
    """A script that a run's ConfigMap has no room for."""

    reason = "ScriptTooLarge"
