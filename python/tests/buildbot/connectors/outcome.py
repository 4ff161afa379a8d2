"""What became of a call, so that two can be compared."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


class Outcome:
    """The value or the exception of a call.

    Equal are those with equal texts: so NaN is NaN, and 1 is not True.
    """

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.value: Any = None
        try:
            self.value = call(*args)
            self.text = repr(self.value)
        except Exception as error:
            self.text = f"raised {type(error).__module__}.{type(error).__name__}"

    def ordered(self) -> str:
        """The text, of a list in order of the ids in it: its order means nothing."""
        if not isinstance(self.value, list):
            return self.text
        return repr(sorted(self.value, key=lambda one: one.id))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outcome) and self.text == other.text

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return self.text


def parameters(method: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Names and defaults of a method's parameters; without those that begin with ``_``."""
    found = inspect.signature(method).parameters.values()
    return [(one.name, one.default) for one in found if not one.name.startswith("_")]
