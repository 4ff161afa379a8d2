"""Stores of the test's namespace, and what runs beside a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Callable, TypeVar

import pytest

from holdfast.stm import Store
from tests.support.cluster import Cluster

T = TypeVar("T")
Stores = Callable[..., Store]


@pytest.fixture
def stores(cluster: Cluster, namespace: str) -> Iterator[Stores]:
    """Makes stores of the test's namespace, each with a client and so a session of its own."""
    made: list[Store] = []

    def make(**options: Any) -> Store:
        made.append(Store(cluster.client(namespace=namespace), **options))
        return made[-1]

    yield make
    for store in made:
        store.client.close()


@pytest.fixture
def store(stores: Stores) -> Store:
    return stores()


def begin(function: Callable[..., T], *arguments: Any, **options: Any) -> Future[T]:
    """Runs something on a thread that holds up nobody, also if it never ends."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments, **options))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
