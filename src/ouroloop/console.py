"""What a person sees of a running loop: phase, loss, time left, and the table of generations so far."""

from collections import deque
from collections.abc import Sequence
from time import monotonic
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from ouroloop.config import EmpiricalConfig, LoopConfig
from ouroloop.loop.observer import Observer
from ouroloop.plain import visible
from ouroloop.testbed.base import as_words

_ROWS = 12
_BLOCKS = " ▁▂▃▄▅▆▇█"


def sparkline(values: list[float], width: int = 60) -> str:
    """A small curve of values from 0 to 1, first to last, in at most `width` characters; `width` is at least 2."""
    if len(values) > width:
        values = [values[round(place * (len(values) - 1) / (width - 1))] for place in range(width)]
    levels = (round(min(max(value, 0.0), 1.0) * (len(_BLOCKS) - 1)) for value in values)
    return "".join(_BLOCKS[level] for level in levels)


def percent(metrics: dict[str, float], key: str) -> str:
    return as_words(key, metrics[key]) if key in metrics else "–"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def in_words(seconds: float) -> str:
    """A duration for a sentence: its two largest units, and never zero."""
    minutes, rest = divmod(max(1, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def say(console: Console, line: str, style: str = "") -> None:
    """Print a line as it is: a name or a path may look like markup."""
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


class LoopView(Observer):
    """A live display on a terminal, one line per generation elsewhere. A context manager, entered for each loop."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"), console=console,
        )  # fmt: skip
        self._generations: TaskID = self._progress.add_task("generations", total=1, note="")
        self._steps: TaskID = self._progress.add_task("", total=1, note="")
        self._live: Live | None = None
        self._title = ""
        self._config: LoopConfig | None = None
        self._rows: list[tuple[int, dict[str, float]]] = []
        self._seconds: deque[float] = deque(maxlen=5)
        self._copied, self._generation = 0, 1
        self._started = monotonic()

    def __enter__(self) -> "LoopView":
        if self._console.is_terminal:
            self._live = Live(self, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def __rich__(self) -> RenderableType:
        return Group(fitted(self.table(_ROWS), self._console), self._progress)

    def loop_started(self, config: LoopConfig, name: str) -> None:
        self._config, self._title, self._rows, self._copied = config, visible(name), [], 0
        self._seconds.clear()
        self._progress.reset(self._generations, total=config.num_generations, description="generations", note="")
        if not self._live:
            say(self._console, f"{self._title}: generations 1 to {config.num_generations}")

    def texts_lost(self, count: int, num_texts: int) -> None:
        say(
            self._console,
            f"the model's tokens do not reproduce {count:,} of {num_texts:,} texts of D_0 exactly",
            "yellow",
        )

    def generation_started(self, generation: int) -> None:
        self._started, self._generation = monotonic(), generation
        self._progress.update(self._generations, description=f"generation {generation}")

    def phase_started(self, phase: str) -> None:
        total, config = None, self._config
        if phase == "train" and config and config.train and not isinstance(config.model, EmpiricalConfig):
            total = config.model.num_members * config.train.num_steps_of(self._generation)
        self._progress.reset(self._steps, total=total, description=f"  {phase}", note="")

    def trained(self, step: int, nats_per_token: float) -> None:
        self._progress.update(self._steps, completed=step, note=f"loss {nats_per_token:.3f} nats/token")

    def ran_short(self, generation: int, shortfall: str) -> None:
        say(self._console, f"t = {generation}: {shortfall}", "yellow")

    def loop_is_complete(self) -> None:
        say(self._console, f"{self._title}: already complete")

    def generation_finished(self, generation: int, metrics: dict[str, float], source: str) -> None:
        assert self._config is not None
        self._rows.append((generation, metrics))
        self._copied += source.startswith("copied")
        if not source:
            self._seconds.append(monotonic() - self._started)
        left = ""
        if self._seconds:
            remaining = self._config.num_generations - generation
            left = f"{duration(remaining * sum(self._seconds) / len(self._seconds))} left"
        self._progress.update(self._generations, completed=generation, note=left)
        if not self._live:
            words = self._config.data.testbed.headline.items()
            shares = "  ".join(f"{word} {percent(metrics, key):>6}" for word, key in words)
            say(
                self._console,
                f"  generation {generation:>3}/{self._config.num_generations}"
                f"  {shares}  retention {percent(metrics, 'diversity_retention'):>6}"
                f"  unique {metrics['num_unique']:,.0f}  {source or left}",
            )

    def table(self, rows: int | None = None) -> Table:
        """The generations so far, the last `rows` of them, with the curve of diversity as caption."""
        retention = [metrics["diversity_retention"] for _, metrics in self._rows if "diversity_retention" in metrics]
        title = f"{self._title}" + (f"   …{len(self._rows) - rows} above" if rows and len(self._rows) > rows else "")
        caption = f"diversity kept  {sparkline(retention)}" if retention else "diversity kept  –"
        caption += f"\n{self._copied} generations copied from other loops, with their times" if self._copied else ""
        table = Table(title=Text(title, "table.title"), caption=caption, title_justify="left", caption_justify="left")
        shares = self._config.data.testbed.composition if self._config else {}
        for heading in ("t", *shares, "diversity kept", "unique", "val. loss", "seconds"):
            table.add_column(heading, justify="right")
        for generation, metrics in self._rows[-rows:] if rows else self._rows:
            table.add_row(
                str(generation),
                *(percent(metrics, key) for key in shares.values()),
                percent(metrics, "diversity_retention"),
                f"{metrics['num_unique']:,.0f}",
                f"{metrics['validation_nats']:.2f}" if "validation_nats" in metrics else "–",
                f"{metrics['generation_seconds']:.1f}",
            )
        return table


_LEAST_WIDTH = 6  # of a column that is folded


def fitted(table: Table, console: Console) -> Table:
    """The table as it fits this console, with every figure whole.

    Where the console is narrow, texts are folded; then curves are left out, and then the rightmost columns, which are
    named below it.
    """
    natural = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    if natural <= console.width:
        return table
    columns = table.columns
    curves = [column for column in columns[1:] if column.no_wrap and column.justify == "left"]
    for column in columns:
        if column.justify == "right" or column in curves:
            words = [*str(column.header).split(), *column.cells]
            column.width = max(console.measure(word).maximum for word in words)
        column.no_wrap, column.overflow = False, "fold"
    left_out = list[str]()
    while len(columns) > 1 and _least_width(columns) > console.width:
        if curves:
            columns.remove(curves.pop())
        else:
            left_out.insert(0, str(columns.pop().header))
    if left_out:
        before = [Text(str(table.caption))] if table.caption else []
        table.caption = Text("\n").join([Text(f"Too narrow for: {', '.join(left_out)}"), *before])
        table.caption_justify = "left"
    return table


def _least_width(columns: Sequence[Column]) -> int:
    return sum(column.width or column.min_width or _LEAST_WIDTH for column in columns) + 3 * len(columns)


_STYLES = {"True": "green", "False": "red", "malformed": "yellow"}


def print_listing(console: Console, columns: Sequence[str], rows: Sequence[Sequence[object]], title: str) -> None:
    """Print rows: on a terminal with a title and fractions to three digits, in a pipe untitled and with all digits."""
    if not console.is_terminal:
        for row in [columns, *rows]:
            print(*(visible(str(value)) for value in row), sep="\t", file=console.file)
        return
    # Text, not markup: what a model wrote may look like some
    table = Table(title=Text(title), title_justify="left")
    for column, values in zip(columns, zip(*rows, strict=True) if rows else [()] * len(columns), strict=True):
        is_number = all(isinstance(value, int | float) or value == "" or str(value).endswith("%") for value in values)
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        shown = (f"{value:.3g}" if isinstance(value, float) else visible(str(value)) for value in row)
        table.add_row(*(Text(text, style=_STYLES.get(text, "")) for text in shown))
    console.print(fitted(table, console))
