"""Whoever watches a loop. Apart from the loop, so that watching imports neither torch nor MLflow."""

from typing import TYPE_CHECKING

from ouroloop.config import LoopConfig

if TYPE_CHECKING:  # and neither MLflow
    from ouroloop.record.run import Run


class Observer:
    """What a loop tells whoever watches; this one does not look."""

    def loop_started(self, config: LoopConfig, name: str) -> None: ...

    def loop_is_complete(self) -> None:
        """Everything is on record already; its generations follow, none of them is computed."""

    def run_taken(self, run: "Run", device: str) -> None:
        """The loop's run, found or created, before it is written to; one that is gone on with twice. `device` is what
        the learner computes on here.
        """

    def texts_lost(self, count: int, num_texts: int) -> None:
        """So many texts of D_0 are others in the tokens of the learner."""

    def generation_started(self, generation: int) -> None: ...

    def phase_started(self, phase: str) -> None: ...

    def trained(self, step: int, nats_per_token: float) -> None: ...

    def ran_short(self, generation: int, shortfall: str) -> None:
        """Curation kept fewer texts than wanted; in words."""

    def generation_finished(self, generation: int, metrics: dict[str, float], source: str) -> None:
        """`source` says where it is from, when it was not computed just now."""
