"""Whether other tasks have something to do: then the one that keeps the loop gives way."""

import trio


class Others(trio.abc.Instrument):
    """Notes that a task is scheduled, from its `begin` on, unless it is the one that has begun it. `active`: there was
    something for another one since the last `take_active`, or the one that keeps the loop has just given it some."""

    def __init__(self) -> None:
        self._own: trio.lowlevel.Task | None = None
        self.active = False

    def begin(self) -> None:
        """The task that calls this is the one that keeps the loop."""
        self._own = trio.lowlevel.current_task()
        trio.lowlevel.add_instrument(self)

    def end(self) -> None:
        """Note nothing more."""
        trio.lowlevel.remove_instrument(self)

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        """Trio calls this for each step of any task."""
        if task is not self._own:
            self.active = True

    def take_active(self) -> bool:
        """Whether another task was active; forget it."""
        active, self.active = self.active, False
        return active
