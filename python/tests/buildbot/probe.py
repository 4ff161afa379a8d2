"""A service inside a real master that runs what a test asks it to: a coroutine, given as text."""

from __future__ import annotations

import json
import os
import textwrap
import traceback

from buildbot.util.service import BuildbotService
from twisted.internet import defer, task

REQUEST = "probe-request.py"
ANSWER = "probe-answer.json"
PERIOD = 0.02


class Probe(BuildbotService):
    """Looks for a request in the master's directory, and answers there."""

    name = "Probe"

    @defer.inlineCallbacks
    def startService(self):  # noqa: N802
        yield super().startService()
        self._looking = task.LoopingCall(self._look)
        self._looking.start(PERIOD)

    @defer.inlineCallbacks
    def stopService(self):  # noqa: N802
        self._looking.stop()
        yield super().stopService()

    def _look(self):
        path = os.path.join(self.master.basedir, REQUEST)
        try:
            with open(path) as file:
                body = file.read()
        except FileNotFoundError:
            return None
        os.remove(path)
        return defer.Deferred.fromCoroutine(self._answer(body))

    async def _answer(self, body):
        names = {}
        try:
            exec("async def run(master):\n" + textwrap.indent(body, "    "), names)
            answer = {"returned": await names["run"](self.master)}
        except Exception as error:
            answer = {"raised": type(error).__name__, "text": traceback.format_exc()}
        path = os.path.join(self.master.basedir, ANSWER)
        with open(path + ".new", "w") as file:
            json.dump(answer, file)
        os.rename(path + ".new", path)
