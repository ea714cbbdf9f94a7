"""One attempt at a loop, by one process: it may be killed, told to stop, or find that another one has taken over.

An attempt writes its id on the loop's run before it looks at what is done, and reads it again before it writes a
generation. So a process that was wrongly taken for dead finds that the loop is no longer its own.
"""

import os
import socket
import traceback
from collections.abc import Mapping
from math import isfinite
from time import monotonic
from uuid import uuid4

from ouroloop.config import LoopConfig
from ouroloop.loop.loop import run_loop
from ouroloop.loop.observer import Observer
from ouroloop.record import locks, stores
from ouroloop.record.liveness import Pruned, Superseded, close_dead_runs
from ouroloop.record.provenance import processor
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.record.urls import masked
from ouroloop.science.metrics import RETENTION

_FRESH_SECONDS = 1.0  # what was read this recently is not read again to learn whether the loop is still wanted


def run_alone(
    config: LoopConfig, store: Store, *, name: str, preset: str, new: bool = False, observer: Observer | None = None
) -> Run:
    """Run a loop that belongs to no study, after closing what dead processes left RUNNING in this root.

    Raises:
        HeldElsewhereError: another process runs it, or has taken it up meanwhile.
    """
    close_dead_runs(store)
    with locks.alone(preset, config.fingerprint()):
        try:
            run, _ = run_attempt(config, store, name=name, study=preset, new=new, observer=observer)
            return run
        except Superseded:
            raise locks.HeldElsewhereError(f"another process has taken up this loop of {preset}") from None


def run_attempt(
    config: LoopConfig,
    store: Store,
    *,
    name: str,
    study: str,
    method: str = "",
    parent: Run | None = None,
    new: bool = False,
    observer: Observer | None = None,
) -> tuple[Run, dict[int, float]]:
    """Call `run_loop` as an attempt; also return what each generation kept of D_0's diversity, where that is a number.

    A loop that fails keeps its traceback as an artifact.

    Raises:
        Superseded: another attempt has taken up the loop.
        Pruned: the loop was told that nothing depends on it any more.
    """
    attempt = _Attempt(store, observer or Observer(), {"method": method} if method else {})
    try:
        run = run_loop(config, store, name=name, study=study, parent=parent, new=new, observer=attempt)
        return run, attempt.retention
    except Pruned:
        assert attempt.run is not None
        attempt.run.log_tags(pruned="yes")
        raise
    except Exception:
        if attempt.run is not None:
            attempt.run.log_bytes("traceback.txt", masked(traceback.format_exc()).encode())
        raise


class _Attempt(Observer):
    """Tells whoever watches what the loop does, and asks the record whether it may go on."""

    def __init__(self, store: Store, watch: Observer, tags: Mapping[str, str]) -> None:
        self._store, self._watch, self._tags = store, watch, tags
        self._id = uuid4().hex
        self._asked, self._is_wanted = 0.0, True
        self._here = ""
        """The processor that it computes on."""
        self._moved_from: str | None = None
        """The processor that the loop began on, if that is a different one."""
        self.run: Run | None = None
        self.retention: dict[int, float] = {}

    def run_taken(self, run: Run, device: str) -> None:
        """Make the loop this attempt's own."""
        if self.run is None or self.run.id != run.id:
            self._take(run, processor(device))
        self._watch.run_taken(run, device)

    def _take(self, run: Run, here: str) -> None:
        self.run, self._here = run, here
        self._asked = monotonic()
        began_on = run.tag("processor") or here
        self._moved_from = None if began_on == here else began_on
        run.log_tags(
            attempt=self._id,
            wanted="yes",
            worker=f"{socket.gethostname()}:{os.getpid()}",
            root=stores.root_id(),
            **({"pruned": "no"} if run.is_pruned else {}),  # else a stop would count as the search's
            **self._tags,
        )

    def _ask(self) -> None:
        assert self.run is not None
        now = self._store.get(self.run.id)
        if now.tag("attempt") != self._id:
            raise Superseded
        self._asked, self._is_wanted = monotonic(), now.tag("wanted") != "no"

    def loop_started(self, config: LoopConfig, name: str) -> None:
        self._watch.loop_started(config, name)

    def texts_lost(self, count: int, num_texts: int) -> None:
        self._watch.texts_lost(count, num_texts)

    def generation_started(self, generation: int) -> None:
        if monotonic() - self._asked > _FRESH_SECONDS:
            self._ask()
        if not self._is_wanted:
            raise Pruned
        self._watch.generation_started(generation)

    def phase_started(self, phase: str) -> None:
        if phase == "record":
            self._ask()
        self._watch.phase_started(phase)

    def trained(self, step: int, nats_per_token: float) -> None:
        self._watch.trained(step, nats_per_token)

    def ran_short(self, generation: int, shortfall: str) -> None:
        self._watch.ran_short(generation, shortfall)

    def loop_is_complete(self) -> None:
        self._watch.loop_is_complete()

    def generation_finished(self, generation: int, metrics: dict[str, float], source: str) -> None:
        if self._moved_from is not None and not source:
            self._mark_moved(generation)
        if RETENTION in metrics and isfinite(metrics[RETENTION]):
            self.retention[generation] = metrics[RETENTION]
        self._watch.generation_finished(generation, metrics, source)

    def _mark_moved(self, generation: int) -> None:
        """Tag a generation as moved: on another kind of processor it is not bit for bit what it would have been."""
        assert self.run is not None
        assert self._moved_from is not None
        for run in self._store.find(level="generation", parent=self.run.id, generation=str(generation)):
            run.log_tags(processor=self._here, moved_from=self._moved_from)
