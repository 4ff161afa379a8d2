"""Pollers that write down when they poll, for ``master.cfg`` files of tests."""

from __future__ import annotations

import json
import os
import time

from buildbot.changes.base import ReconfigurablePollingChangeSource
from buildbot.changes.gitpoller import GitPoller
from twisted.internet import defer

STAMPS = "polls.jsonl"


def stamp(master, source, what):
    """Appends a line to the master's stamps, in one write."""
    line = {"at": time.clock_gettime(time.CLOCK_BOOTTIME), "source": source, "what": what}
    file = os.open(os.path.join(master.basedir, STAMPS), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


class StampedGitPoller(GitPoller):
    """A GitPoller that stamps the beginning and the end of each poll."""

    def poll(self):
        stamp(self.master, self.name, "begin")
        polled = defer.maybeDeferred(super().poll)

        def ended(result):
            stamp(self.master, self.name, "end")
            return result

        return polled.addBoth(ended)


class StampedPoller(ReconfigurablePollingChangeSource):
    """A poller that does nothing else."""

    def poll(self):
        stamp(self.master, self.name, "begin")
        stamp(self.master, self.name, "end")
        return defer.succeed(None)
