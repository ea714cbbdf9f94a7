"""Whoever watches a loop. In a module of its own, so that watching imports neither torch nor MLflow."""

from typing import TYPE_CHECKING

from ouroloop.config import LoopConfig

if TYPE_CHECKING:  # or MLflow would be imported
    from ouroloop.record.run import Run


class Observer:
    """What a loop tells whoever watches; this base class ignores it all."""

    def loop_started(self, config: LoopConfig, name: str) -> None: ...

    def loop_is_complete(self) -> None:
        """Everything is on record already: its generations are reported next, and none is computed."""

    def run_taken(self, run: "Run", device: str) -> None:
        """The loop's run was found or created; called before it is written to, and twice if the loop is resumed.

        `device` is what the learner computes on here.
        """

    def texts_lost(self, count: int, num_texts: int) -> None:
        """`count` of the `num_texts` texts of D_0 do not come back unchanged from the learner's tokens."""

    def generation_started(self, generation: int) -> None: ...

    def phase_started(self, phase: str) -> None: ...

    def trained(self, step: int, nats_per_token: float) -> None: ...

    def ran_short(self, generation: int, shortfall: str) -> None:
        """Curation kept fewer texts than wanted; `shortfall` says so in words."""

    def generation_finished(self, generation: int, metrics: dict[str, float], source: str) -> None:
        """`source` says where its result comes from; it is empty if it was computed just now."""
