"""One loop of a study and what is known of it; and what a study's database says of all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import ValidationError

from ouroloop.config import ConfigError, LoopConfig
from ouroloop.schema import message
from ouroloop.study.config import StudyConfig

State = Literal["waits", "runs", "done", "pruned", "stopped", "failed"]

BEGUN = "begun"
"""The attribute of a study that holds, by task, the loop and the progress of what is not a trial yet."""

Read = TypeVar("Read", LoopConfig, StudyConfig)

KEY = "cell"
"""The attribute of a trial that holds the key of its task; databases of all versions have it under this name."""

_STATES: dict[str, State] = {
    "WAITING": "waits",
    "RUNNING": "stopped",
    "COMPLETE": "done",
    "FAIL": "failed",
    "PRUNED": "pruned",
}


@dataclass
class Task:
    """One loop of a study and what is known of it."""

    loop: LoopConfig
    key: str
    """Its fingerprint, or what that was when the loop was first asked for."""
    state: State = "waits"
    number: int | None = None
    """The number of its newest trial; None before there is one."""
    retention: dict[int, float] = field(default_factory=dict)
    """Diversity over D_0's, by generation."""
    reached: int = 0
    ceiling: float | None = None
    """The retention that a sample would have with every pair of its texts wholly different."""
    seconds: float = 0.0
    computed: int = 0
    """Generations that `seconds` were spent on."""
    copied: int = 0
    """Generations on record that were copied from other loops, which takes next to no time."""
    error: str | None = None
    worker: str | None = None

    @property
    def value(self) -> float | None:
        """The retention at the last generation, once that is reached."""
        return self.retention.get(self.loop.num_generations) if self.state == "done" else None

    @property
    def progress(self) -> dict[str, Any]:
        names = ("state", "reached", "ceiling", "seconds", "computed", "error", "worker")
        rounded = [[t, round(kept, 9)] for t, kept in sorted(self.retention.items())]
        return {name: getattr(self, name) for name in names} | {"retention": rounded}

    def take(self, progress: Mapping[str, Any]) -> None:
        """Take over what was noted last; of the state, only that it was running, unless it has ended since."""
        for name, value in progress.items():
            if name != "state":
                setattr(self, name, dict(map(tuple, value)) if name == "retention" else value)
            elif (self.state, value) == ("stopped", "runs"):
                self.state = "runs"


class Told(NamedTuple):
    """A trial, however it was read."""

    number: int
    state: str
    """As Optuna calls it."""
    attributes: Mapping[str, Any]
    value: float | None
    intermediate: Mapping[int, float]
    """By generation, as earlier versions noted retention."""


class Recorded(NamedTuple):
    """What a study's database says of it."""

    name: str
    attributes: Mapping[str, Any]
    trials: Sequence[Told] = ()
    """In the order in which they were first asked for."""

    @property
    def config(self) -> StudyConfig | None:
        """What the study was started with; None before that.

        Raises:
            ConfigError: it was recorded under another schema, or with a step that is not known here.
        """
        recorded, elsewhere = self.attributes.get("config"), self.attributes.get("elsewhere", ())
        return None if recorded is None else self._read(StudyConfig, recorded).without(elsewhere)

    def _read(self, kind: type[Read], recorded: Any) -> Read:
        try:
            return kind.model_validate(recorded)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            said = ": ".join(filter(None, [".".join(map(str, first["loc"])), message(first)]))
            raise ConfigError(
                f"study {self.name!r} cannot be read here ({said}): it was recorded by another "
                "version of ouroloop, or has a step of your own, whose class has to be defined first, in Python; "
                "another name (--name) starts another study"
            ) from None

    @property
    def num_asked(self) -> int:
        """How many loops a sampler has chosen. One that is run again is another trial, told apart by its progress."""
        return sum(KEY in trial.attributes and "progress" not in trial.attributes for trial in self.trials)

    def tasks(self) -> dict[str, Task]:
        """One task for each loop, with its newest trial, in the order in which they were first asked for.

        Raises what `config` does.
        """
        found: dict[str, Task] = {}
        for trial in self.trials:
            if KEY not in trial.attributes:
                continue
            key = trial.attributes[KEY]
            loop = self._read(LoopConfig, trial.attributes["loop"])
            kept = dict(trial.intermediate)
            task = Task(loop, key, _STATES[trial.state], trial.number, kept, max(kept, default=0))
            task.error = trial.attributes.get("error")
            task.take(trial.attributes.get("progress") or self.attributes.get(progress_key(trial.number), {}))
            if task.state == "done":
                assert trial.value is not None
                task.retention[loop.num_generations] = trial.value
                task.reached = loop.num_generations
            found[key] = task
        for key, begun in self.attributes.get(BEGUN, {}).items():
            if key not in found or found[key].state != "done":  # one that is done is struck off later
                found[key] = Task(self._read(LoopConfig, begun["loop"]), key, "stopped")
                found[key].take(begun["progress"])
        return found


def progress_key(number: int) -> str:
    """The attribute of a study that holds the progress of a trial that has not ended."""
    return f"trial {number}"
