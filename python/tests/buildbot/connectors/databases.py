"""Buildbot's database connectors as a master has them, without the rest of the master."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from buildbot.config.master import DBConfig, MasterConfig
from buildbot.db import enginestrategy
from buildbot.db.connector import DBConnector
from buildbot.db.model import Model
from buildbot.process.cache import CacheManager
from buildbot.util.service import MasterService
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import blockingCallFromThread

WITHIN_S = 60.0
"""Nothing that a test asks of the reactor takes that long."""


class Reactor:
    """Twisted's reactor, on a thread of its own: there can be one in a process, and only once."""

    _is_running = False

    @classmethod
    def start(cls) -> None:
        """Starts it, unless it runs; it runs until the process ends."""
        if not cls._is_running:
            cls._is_running = True
            run = threading.Thread(target=real_reactor.run, args=(False,), daemon=True)
            run.start()

    @staticmethod
    def wait(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a function on the reactor's thread; the result of its Deferred, or its error."""

        def call() -> Deferred[Any]:
            return maybeDeferred(function, *args, **kwargs).addTimeout(WITHIN_S, real_reactor)

        return blockingCallFromThread(real_reactor, call)


class Master(MasterService):
    """What the connectors want to know of a master."""

    def __init__(self, directory: Path, template: Path, name: str, reactor: Any) -> None:
        super().__init__()
        self.reactor = reactor
        self.name = name
        self.caches = CacheManager()
        self.config = MasterConfig()
        self.config.db = DBConfig(f"sqlite:///{directory / name}.sqlite")
        shutil.copy(template, directory / f"{name}.sqlite")
        self.db = DBConnector(str(directory))

    async def set_up(self) -> None:
        """Opens the database."""
        await self.db.set_master(self)
        await self.db.setup(check_version=False)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables and no rows; they take a second to make, and a moment to copy."""
    path = tmp_path_factory.mktemp("template") / "state.sqlite"
    engine = enginestrategy.create_engine(f"sqlite:///{path}", basedir=str(path.parent))
    Model.metadata.create_all(engine)
    engine.dispose()
    return path


@contextlib.contextmanager
def running_master(directory: Path, template: Path, name: str = "m") -> Iterator[Master]:
    """A master whose connectors work on the running reactor."""
    Reactor.start()
    master = Master(directory, template, name, real_reactor)
    Reactor.wait(lambda: Deferred.fromCoroutine(master.set_up()))
    try:
        yield master
    finally:
        Reactor.wait(master.db.pool.stop)


def rows(master: Master, table: Any) -> list[tuple[Any, ...]]:
    """All rows of a table of the master's database."""
    with master.db.pool.engine.connect() as connection:
        return sorted(tuple(row) for row in connection.execute(sa.select(table)))


def insert(master: Master, table: Any, **values: Any) -> None:
    """Puts a row into a table of the master's database."""
    with master.db.pool.engine.begin() as connection:
        connection.execute(table.insert().values(**values))
