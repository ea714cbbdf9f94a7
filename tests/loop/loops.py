"""Loops run, watched, stopped and forgotten: what the tests of the loop and of its cache share."""

from collections.abc import Callable

from ouroloop.config import LoopConfig
from ouroloop.loop.loop import run_loop
from ouroloop.loop.observer import Observer
from ouroloop.record.liveness import Interrupted
from ouroloop.record.run import Run
from ouroloop.record.track import Store

TIMES = ("seconds", "tokens_per_second")


class StopAfter(Observer):
    """Interrupts the loop in a phase of a generation, as a signal would."""

    def __init__(self, generation: int, phase: str) -> None:
        self.wanted, self.generation = (generation, phase), 0

    def generation_started(self, generation: int) -> None:
        self.generation = generation

    def phase_started(self, phase: str) -> None:
        if (self.generation, phase) == self.wanted:
            raise Interrupted(15)


class Watcher(Observer):
    """Which generations were fitted, and what was said of those that were not."""

    def __init__(self) -> None:
        self.started, self.fitted, self.sources, self.is_complete = list[int](), list[int](), list[str](), False

    def loop_is_complete(self) -> None:
        self.is_complete = True

    def generation_started(self, generation: int) -> None:
        self.started.append(generation)

    def phase_started(self, phase: str) -> None:
        if phase == "train":
            self.fitted.append(self.started[-1])

    def generation_finished(self, generation: int, metrics: dict[str, float], source: str) -> None:
        self.sources.append(source)


def forget() -> None:
    """The next loop computes all of its generations itself."""
    store = Store.open()
    for run in store.find(level="generation"):
        store.client.set_tag(run.id, "ouroloop.key", "forgotten")


def loop(config: LoopConfig, study: str = "test", observer: Observer | None = None, new: bool = False) -> Run:
    return run_loop(config, Store.open(), name=f"{study} loop", study=study, observer=observer, new=new)


def watched(config: LoopConfig, study: str = "test", new: bool = False) -> tuple[Run, Watcher]:
    watcher = Watcher()
    return loop(config, study, watcher, new), watcher


def outcome(run: Run, is_wanted: Callable[[str], bool] = lambda key: not key.endswith(TIMES)) -> dict[str, object]:
    """Every metric history of a loop run but the times."""
    return {key: run.history(key) for key in run.store.get(run.id).metrics if is_wanted(key)}


def generations(run: Run) -> list[Run]:
    return sorted(run.store.find(level="generation", parent=run.id), key=lambda g: int(g.tag("generation") or 0))


def note(run: Run) -> str:
    """The text that the UI shows at the top of the run."""
    return str(run.entity.data.tags["mlflow.note.content"])


def sampled(run: Run) -> list[bytes]:
    return [generation.read_dataset("samples.tsv.gz").to_bytes() for generation in generations(run)]
