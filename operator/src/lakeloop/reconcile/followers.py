"""Who follows which registered model, and when aliases were moved: what ties the registry's news to our objects."""

from collections import OrderedDict
from datetime import datetime

from lakeloop.reconcile.protocol import Key

MOVES_REMEMBERED = 1024


class Followers:
    """ModelDeployments by the model that they serve, kept up by the watch."""

    def __init__(self) -> None:
        self._model: dict[Key, str] = {}
        self._keys: dict[str, set[Key]] = {}

    def set(self, key: Key, model: str) -> None:
        """The object serves this model now."""
        if self._model.get(key) == model:
            return
        self.discard(key)
        self._model[key] = model
        self._keys.setdefault(model, set()).add(key)

    def discard(self, key: Key) -> None:
        """The object is gone."""
        if (model := self._model.pop(key, None)) is not None:
            self._keys[model].discard(key)
            if not self._keys[model]:
                del self._keys[model]

    def of(self, model: str) -> tuple[Key, ...]:
        """All that serve the model."""
        return tuple(self._keys.get(model, ()))

    def all(self) -> tuple[Key, ...]:
        """All."""
        return tuple(self._model)


class AliasMoves:
    """When aliases were last moved, as told by webhooks: the registry itself does not keep it."""

    def __init__(self) -> None:
        self._moves: OrderedDict[tuple[str, str], tuple[int, datetime]] = OrderedDict()

    def note(self, model: str, alias: str, version: int, time: datetime) -> None:
        """The alias was pointed to the version."""
        self._moves[model, alias] = (version, time)
        self._moves.move_to_end((model, alias))
        if len(self._moves) > MOVES_REMEMBERED:
            self._moves.popitem(last=False)

    def when(self, model: str, alias: str, version: int) -> datetime | None:
        """When the alias was pointed to that version; None where that is not the last that was heard of it."""
        found = self._moves.get((model, alias))
        return found[1] if found is not None and found[0] == version else None
