"""What every store does, as documented for ``gc3libs.persistence.store``."""

from __future__ import annotations

import abc
import builtins
from typing import Any


class Store(abc.ABC):
    """A place where objects are kept. Calls block.

    What a program keeps there, it can keep anywhere: see :func:`~holdfast.persistence.make_store`.
    """

    url: Any = None
    """What the store was made from."""

    def pre_fork(self) -> None:  # noqa: B027 # it may be all that is needed
        """To be called before the program forks: lets go of what a child must not share.

        A program that forks without it is safe too: stores make anew in a child what they need.
        """

    def post_fork(self) -> None:  # noqa: B027 # it may be all that is needed
        """To be called after a fork, in parent and child."""

    def invalidate_cache(self) -> None:  # noqa: B027 # it may be all that is needed
        """Forgets whatever was loaded: the next load of each object brings a new one."""

    def list(self, **filters: Any) -> builtins.list[str]:
        """The ids of the objects that pass all filters, in order.

        Raises:
            NotImplementedError: This kind of store cannot.
        """
        raise NotImplementedError(f"list is not implemented by {type(self).__name__}")

    @abc.abstractmethod
    def load(self, id_: str) -> Any:
        """The object of this id.

        Raises:
            LoadError: There is none.
        """

    @abc.abstractmethod
    def remove(self, id_: str) -> None:
        """Removes an object, and not what it refers to. Silent if there is none."""

    @abc.abstractmethod
    def replace(self, id_: str, obj: Any) -> None:
        """Stores a copy of an object under this id, whatever its own is."""

    @abc.abstractmethod
    def save(self, obj: Any) -> str:
        """Saves an object, and returns its id, which is also set on the object."""
