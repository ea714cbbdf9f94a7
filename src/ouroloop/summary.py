"""What the loops of a study came to, as MLflow has it."""

from rich import box
from rich.table import Table

from ouroloop.status import RETENTION, RUN_STATES, half_life
from ouroloop.track import Run, Store
from ouroloop.view import percent, sparkline


def newest_loops(store: Store, name: str) -> list[Run]:
    """The loop runs of a study, the newest for each cell, in order of cycle, proportion and seed."""
    newest_last = reversed(store.find(level="loop", study=name))
    loops = {loop.tag("fingerprint"): loop for loop in newest_last}
    return sorted(loops.values(), key=lambda loop: loop.entity.info.run_name)


def study_table(store: Store, name: str) -> Table:
    """The result of each loop of a study, at the last generation that it reached."""
    title = f"{name}: the last generation t of each loop (kept: diversity over D_0's)"
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("loop", no_wrap=True)
    for heading in ("t", "true", "errors", "kept", "half at t"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("curve", no_wrap=True)
    for loop in newest_loops(store, name):
        retention = dict(loop.history(RETENTION))
        reached, life = loop.reached, half_life(retention)
        metrics = last_metrics(loop)
        if _mark(loop) == "†":
            table.caption = "† ended early: nothing depended on it any more"
        table.add_row(
            loop.entity.info.run_name,
            f"{reached}{_mark(loop)}",
            percent(metrics, "correctness"),
            percent(metrics, "error_rate"),
            percent(metrics, RETENTION),
            f"> {reached}" if life is None else f"{life}",
            sparkline([kept for _, kept in sorted(retention.items())], width=9),
        )
    return table


def last_metrics(loop: Run) -> dict[str, float]:
    """The metrics of the last generation; none before the first, since those of step 0 are D_0's."""
    return loop.metrics if loop.reached else {}


def _mark(loop: Run) -> str:
    """What the table says of a loop that is not finished: little, or its columns would not fit a terminal."""
    if loop.status == "FINISHED":
        return ""
    return "†" if loop.status == "KILLED" and loop.tag("pruned") == "yes" else f" {RUN_STATES[loop.status]}"
