"""What is written once as coroutines, offered in one flavour.

A flavour says two things: what a caller gets for a coroutine (a result, an awaitable, a Deferred),
and where its own functions run that it hands to an operation.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")

Core = TypeVar("Core")
T = TypeVar("T")


class Facade(Generic[Core]):
    """An object of a flavour, over the one that has the coroutines."""

    def __init__(self, core: Core) -> None:
        self._core = core


def documented(
    method: Callable[..., Any], operation: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]
) -> None:
    """Gives a flavour's method the name, the signature and the text of what it offers."""
    functools.update_wrapper(method, operation)
