"""A loop as files that outlive the store: its curves as CSV and picture, and what its models wrote."""

import csv
from io import StringIO
from pathlib import Path

import yaml
from pydantic import ValidationError

from ouroloop.config import ConfigError, LoopConfig
from ouroloop.figure import loop_png
from ouroloop.measure import Sample
from ouroloop.track import Run, Store

_MOST_FREQUENT = 25


def find_loops(store: Store, name: str) -> list[Run]:
    """The newest loop run of each cell of a study or lone loop, or the loop run with this id.

    Raises:
        ConfigError: there is none.
    """
    newest_last = reversed(store.find(level="loop"))
    loops = [run for run in newest_last if name in (run.tag("study"), run.id)]
    if not loops:
        raise ConfigError(f"no study or loop {name!r}; `ouroloop status` lists the studies, the MLflow UI every run")
    return list({run.tag("fingerprint"): run for run in loops}.values())


def write_reports(store: Store, name: str, folder: Path, generations: list[int]) -> list[Path]:
    """The report of each loop of a study, or of one loop, and where it is; a folder each if they are several."""
    loops = find_loops(store, name)
    written = []
    for loop in loops:
        own = f"{loop.entity.info.run_name}-{(loop.tag('fingerprint') or '')[:8]}"
        target = folder if len(loops) == 1 else folder / own
        write_report(loop, target, generations)
        written.append(target)
    return written


def write_report(loop: Run, folder: Path, generations: list[int]) -> None:
    """`curves.csv`, `curves.png`, `config.yaml`, `environment.json`, and `samples-tNN.tsv` as named."""
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(loop)
    history = {key: loop.history(key) for key in sorted(loop.metrics)}
    reached = max(step for step, _ in history["diversity_levenshtein"])
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    (folder / "environment.json").write_text(loop.read_text("environment.json") + "\n")
    (folder / "curves.csv").write_text(_csv(history, reached))
    (folder / "curves.png").write_bytes(loop_png(history, config))
    for child in loop.store.find(level="generation", parent=loop.id):
        number = int(child.tag("generation") or 0)
        if number in generations and child.status == "FINISHED":
            sample = Sample.of(child.read_dataset("samples.tsv.gz").texts)
            (folder / f"samples-t{number:02d}.tsv").write_text(_most_frequent(sample))


def _config(loop: Run) -> LoopConfig:
    try:
        return LoopConfig.model_validate(yaml.safe_load(loop.read_text("config.yaml")))
    except ValidationError:
        version = loop.tag("ouroloop_version")
        raise ConfigError(f"run {loop.id} was recorded by ouroloop {version}, with another schema") from None


def _csv(history: dict[str, list[tuple[int, float]]], reached: int) -> str:
    """A row per generation, a column per metric; what was not measured is empty."""
    columns = {key: dict(points) for key, points in history.items()}
    buffer = StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["generation", *columns])
    for generation in range(reached + 1):
        table.writerow([generation, *(columns[key].get(generation, "") for key in columns)])
    return buffer.getvalue()


def _most_frequent(sample: Sample) -> str:
    lines = ["count\tshare\tverdict\tdepth\texpression"]
    for count, share, verdict, depth, text in sample.most_frequent(_MOST_FREQUENT):
        lines.append(f"{count}\t{share:.4f}\t{verdict}\t{depth}\t{text}")
    return "\n".join(lines) + "\n"
