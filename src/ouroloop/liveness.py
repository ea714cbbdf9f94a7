"""A run is RUNNING while a process runs it: from the moment that it is there, and no longer than the process."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ouroloop import stores
from ouroloop.signals import held
from ouroloop.track import Run, Store


@contextmanager
def running(take: Callable[[], Run]) -> Iterator[Run]:
    """The run that `take` finds or creates, RUNNING inside: no signal leaves it created and never closed."""
    with ExitStack() as entered:
        with held():
            run = take()
            entered.enter_context(run.running())
        yield run


def close_dead_runs(store: Store) -> None:
    """Closes as KILLED the runs that a process of this place left RUNNING when it died.

    Whoever runs a loop or a study holds its lock; a generation is as alive as its loop.
    """
    for run in store.running():
        level, owner = run.tag("level"), run
        if level == "generation":
            owner = store.get(run.parent_id or run.id)
        key = "study" if level == "study" else owner.tag("fingerprint")
        study = owner.tag("study")
        if owner.tag("place") == stores.place() and study and key and not stores.is_locked(study, key):
            run.end("KILLED")
