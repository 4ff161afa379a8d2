"""A session-based script as users write them; it knows nothing of where its tasks are kept."""

from __future__ import annotations

import gc3libs
from gc3libs.cmdline import SessionBasedScript


class Step(gc3libs.Application):
    def __init__(self, name, **extra_args):
        super().__init__(
            arguments=["/bin/sh", "-c", f"echo done {name}"],
            inputs=[],
            outputs=[],
            stdout="out.txt",
            jobname=name,
            **extra_args,
        )


class Steps(SessionBasedScript):
    """Runs three steps."""

    def __init__(self):
        super().__init__(version="1.0")

    def new_tasks(self, extra):
        for nth in range(3):
            yield Step(f"step-{nth}", **extra)


if __name__ == "__main__":
    # GC3Pie's tools find the classes of tasks by their module.
    import script

    script.Steps().run()
