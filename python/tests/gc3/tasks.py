"""Tasks that the tests store: they are found by their module when they come back."""

from __future__ import annotations

import gc3libs
from gc3libs.persistence import Persistable
from gc3libs.workflow import ParallelTaskCollection, SequentialTaskCollection


class Job(Persistable):
    """As little as GC3Pie stores."""

    def __init__(self, command="", *children):
        super().__init__()
        self.command = command
        self.children = list(children)


class Echo(gc3libs.Application):
    def __init__(self, text, **extra_args):
        extra_args.setdefault("output_dir", "/nowhere")
        super().__init__(
            arguments=["/bin/echo", text],
            inputs=[],
            outputs=[],
            stdout="out.txt",
            jobname=f"echo-{text}",
            **extra_args,
        )


def collection(size):
    """A collection of so many applications."""
    tasks = [Echo(str(nth)) for nth in range(size)]
    return ParallelTaskCollection(tasks, output_dir="/nowhere", jobname="collection")


def nested(depth):
    """Collections in one another, with an application in the innermost."""
    task = Echo("innermost")
    for nth in range(depth):
        task = SequentialTaskCollection([task], output_dir="/nowhere", jobname=f"level-{nth}")
    return task
