"""What an executor is given: one loop of a study, from where it stopped. Cheap to import; torch comes with the work."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Literal

from ouroloop.config import ConfigError, LoopConfig
from ouroloop.loop.observer import Observer
from ouroloop.record import stores
from ouroloop.record.liveness import Interrupted, Pruned, Superseded, catch_signals, kept_handlers
from ouroloop.record.urls import masked

if TYPE_CHECKING:
    from ouroloop.record.run import Run
    from ouroloop.record.track import Store


@dataclass(frozen=True)
class LoopResult:
    """What came of an attempt at a loop."""

    state: Literal["done", "pruned", "failed", "superseded"]
    retention: Sequence[tuple[int, float]] = ()
    """By generation."""
    error: str | None = None
    ran_short: Sequence[tuple[int, str]] = ()
    """Generations in which curation kept too few, and how few."""
    num_computed: int = 0
    """Generations that were neither on record nor copied. This and `ran_short` are empty where somebody watched."""
    num_copied: int = 0
    """Generations on the record of a loop that is done which were copied."""


class _Notes(Observer):
    def __init__(self) -> None:
        self.ran_short_in: list[tuple[int, str]] = []
        self.num_computed = 0

    def ran_short(self, generation: int, shortfall: str) -> None:
        self.ran_short_in.append((generation, shortfall))

    def generation_finished(self, generation: int, metrics: dict[str, float], source: str) -> None:
        self.num_computed += not source


def require_possible(loop: LoopConfig, hungriest: LoopConfig) -> None:
    """Raise ConfigError if `loop` cannot run here, or the source of its data has too little for `hungriest`."""
    from ouroloop.learner import require_runnable
    from ouroloop.loop.loop import prepared_testbed

    require_runnable(loop)
    if loop.data.testbed.is_finite:
        prepared_testbed(hungriest)


def require_same_corpus(loop: LoopConfig, study: str, recorded: "Sequence[Run]") -> None:
    """Raise ConfigError where loops of the study on record learnt from another corpus: no mean is over both."""
    from ouroloop.loop.loop import prepared_testbed

    digest = prepared_testbed(loop).digest
    other = next((run.name for run in recorded if run.tag("corpus_digest") not in (None, digest)), None)
    if other is not None:
        raise ConfigError(
            f"the corpus is not what it was when {other} of study {study!r} began; another name (--name) starts "
            "another study"
        )


def run_one(
    loop: LoopConfig,
    study: str,
    parent_id: str,
    method: str = "",
    environment: Mapping[str, str] | None = None,
    watch: Observer | None = None,
) -> LoopResult:
    """Run the loop, or what is missing of it, as part of the study whose run is `parent_id`.

    `method` is what it is called there, where methods are compared.

    A loop that fails is a result; what ends the whole study is raised: a store that is gone or full, or a signal. In a
    worker, a signal ends the process.
    """
    os.environ.update(environment or {})  # as an argument: Ray logs what it is given otherwise, passwords included
    with _stoppable() if watch is None else nullcontext():
        from ouroloop.loop.attempt import run_attempt

        store, parent = _study(stores.tracking_uri(), str(stores.runs_folder()), parent_id)
        notes = _Notes()
        try:
            run, retention = run_attempt(
                loop,
                store,
                name=loop.named(method) if method else loop.label,
                study=study,
                method=method,
                parent=parent,
                observer=watch or notes,
            )
        except Pruned:
            return LoopResult("pruned")
        except Superseded:
            return LoopResult("superseded", error="another attempt has taken up the loop")
        except stores.StoreError:
            raise
        except Exception as error:
            if stores.is_full(error):
                raise stores.no_room() from None
            return LoopResult("failed", error=masked(f"{type(error).__name__}: {error}"))
    copied = int(store.get(run.id).value("copied") or 0)
    return LoopResult("done", sorted(retention.items()), None, notes.ran_short_in, notes.num_computed, copied)


@lru_cache(maxsize=1)
def _study(uri: str, folder: str, parent_id: str) -> "tuple[Store, Run]":
    """A worker has one study at a time, and asks for it once."""
    from ouroloop.record.track import Store

    store = stores.patiently(Store.open)  # the driver has opened it before
    return store, store.get(parent_id)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end the loop inside, closing its runs, and then the worker; an idle worker it ends as usual.

    What a signal cuts off in the middle stays that way in this process: a package that was being imported has some
    of its modules and lacks others, and every later loop would fail because of it.
    """
    if current_thread() is not main_thread():
        yield
        return
    signals = (signal.SIGTERM, signal.SIGINT)
    with kept_handlers():
        catch_signals([number for number in signals if signal.getsignal(number) is not signal.SIG_IGN])
        try:
            yield
        except (Interrupted, KeyboardInterrupt):
            os._exit(1)
