"""Which kind of store a URI stands for (P5)."""

from __future__ import annotations

from typing import Any, Callable

from holdfast.persistence.cluster import ClusterStore
from holdfast.persistence.errors import BadUri, UnknownScheme
from holdfast.persistence.files import FilesystemStore
from holdfast.persistence.store import Store
from holdfast.persistence.uri import Uri, is_scheme

_constructors: dict[str, Callable[..., Store]] = {}


def make_store(uri: str | Uri, *args: Any, **kwargs: Any) -> Store:
    """The store that a URI names.

    - ``holdfast://HOST:PORT[,HOST:PORT…]/NAMESPACE``: a cluster, see
      :class:`~holdfast.persistence.ClusterStore`
    - ``file:///PATH``, or a bare path: a directory, see
      :class:`~holdfast.persistence.FilesystemStore`
    - whatever was registered with :func:`register`

    Does no IO: what cannot be reached is found out by the first call.

    Args:
        uri: As above.
        args: Go to the constructor, behind the URI.
        kwargs: As these.

    Raises:
        UnknownScheme: It lists the schemes there are.
        BadUri: It names no store.
        TypeError: Its constructor takes no such argument: a misspelt ``allow`` would let in what it
            was to keep out. GC3Pie's stores pass such arguments over.
    """
    parsed = uri if isinstance(uri, Uri) else Uri.parse(str(uri))
    constructor = _constructors.get(parsed.scheme)
    if constructor is None:
        raise UnknownScheme(parsed.scheme, parsed.text, _constructors)
    return constructor(parsed, *args, **kwargs)


def register(scheme: str, constructor: Callable[..., Store]) -> None:
    """Lets :func:`make_store` make stores of a scheme by this, in place of the one it had.

    Args:
        scheme: Letters, digits, ``+``, ``-`` and ``.``, a letter first.
        constructor: Is given the :class:`~holdfast.persistence.uri.Uri`, and whatever else
            :func:`make_store` was.

    Raises:
        TypeError: The constructor cannot be called.
        BadUri: It is no scheme.
    """
    if not callable(constructor):
        raise TypeError(f"the constructor for scheme {scheme!r} cannot be called: {constructor!r}")
    if not is_scheme(scheme):
        raise BadUri(scheme, "a scheme is letters, digits, +, - and ., a letter first")
    _constructors[scheme.lower()] = constructor


register("file", FilesystemStore)
register("holdfast", ClusterStore)
