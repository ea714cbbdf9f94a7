"""What do a long loop and a large study cost, as they grow?

    python experiments/check_growth.py loop [GENERATIONS]     # 2,000 by default
    python experiments/check_growth.py study [LOOPS ...]      # 10 and 200

The first runs a loop of the ideal learner (m = 50) and notes, every hundred generations, the processor time that one
has taken, the memory of the process and the size of MLflow's database: only the last may have a slope.
The second fills a root of its own for each number of loops, of 50 generations each, then measures in processes of their
own a sweep with nothing missing and a report, and the sizes of the page and of the database. To fill 200 loops takes
about a quarter of an hour on a quiet core. Both write `experiments/results/growth-*.json` as they go.
"""

import gc
import json
import os
import resource
import subprocess
import sys
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

from rich.console import Console

import ouroloop
from ouroloop.config import LoopConfig
from ouroloop.loop.loop import run_loop
from ouroloop.loop.observer import Observer
from ouroloop.record.track import Store
from ouroloop.study.config import StudyConfig
from ouroloop.study.driver import run_study

RESULTS = Path(__file__).parent / "results"
LOOP = {"num_generations": 50, "data": {"num_examples": 50}, "model": {"kind": "empirical"}, "train": None}
EVERY = 100


class Growth(Observer):
    def __init__(self, path: Path, database: Path) -> None:
        self.path, self.database, self.rows = path, database, list[dict[str, float]]()
        self.begun = process_time()

    def generation_finished(self, generation: int, metrics: dict[str, float], source: str) -> None:
        if generation % EVERY:
            return
        seconds, self.begun = (process_time() - self.begun) / EVERY, process_time()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory = pages * resource.getpagesize() / 1e6
        row = {"generation": generation, "seconds_each": round(seconds, 4), "memory_mb": round(memory, 1)}
        self.rows.append(row | {"database_mb": round(self.database.stat().st_size / 1e6, 1)})
        self.path.write_text(json.dumps(summary(self.rows), indent=1) + "\n")
        print(json.dumps(self.rows[-1]), flush=True)


def summary(rows: list[dict[str, float]]) -> dict[str, object]:
    """Slopes and rows. The first hundred generations also pay for imports: the slopes are those of the others."""
    later = rows[1:]
    return {"every": EVERY, "slope_of_seconds_per_1000": slope(later, "seconds_each"),
            "slope_of_memory_mb_per_1000": slope(later, "memory_mb"), "rows": rows}  # fmt: skip


def slope(rows: list[dict[str, float]], key: str) -> list[float] | None:
    """By least squares, with its standard error."""
    n = len(rows)
    if n < 4:
        return None
    x = [row["generation"] / 1_000 for row in rows]
    y = [row[key] for row in rows]
    mx, my = sum(x) / n, sum(y) / n
    sxx = sum((one - mx) ** 2 for one in x)
    b = sum((p - mx) * (q - my) for p, q in zip(x, y, strict=True)) / sxx
    rest = sum((q - my - b * (p - mx)) ** 2 for p, q in zip(x, y, strict=True)) / (n - 2)
    return [round(b, 5), round((rest / sxx) ** 0.5, 5)]


def long_loop(generations: int) -> None:
    config = LoopConfig.model_validate(LOOP | {"num_generations": generations, "seed": 1})
    with TemporaryDirectory() as folder:
        os.environ["OUROLOOP_ROOT"] = folder
        growth = Growth(RESULTS / "growth-loop.json", Path(folder) / "mlruns" / "mlflow.db")
        gc.collect()
        run_loop(config, Store.open(), name="long", study="growth", observer=growth)


def study(loops: int) -> StudyConfig:
    return StudyConfig.model_validate(
        {"synthetic_proportions": [0.0, 1.0], "seeds": list(range(loops // 2)), "loop": LOOP}
    )


def ask(what: str, loops: int) -> None:
    """In a process of its own: imports count, as they do for whoever types the command."""
    if what == "report":
        print(ouroloop.load("grow").report())
    else:
        run_study(study(loops), "grow", Console(file=StringIO()), 1)


def seconds(what: str, loops: int) -> float:
    """Processor time, imports included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, __file__, what, str(loops)], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2)


def large_studies(numbers: list[int]) -> None:
    rows = []
    for loops in numbers:
        with TemporaryDirectory() as folder:
            os.environ["OUROLOOP_ROOT"] = folder
            filled = seconds("fill", loops)
            found = {"loops": loops, "fill_seconds": filled, "sweep_seconds": seconds("sweep", loops)}
            found["report_seconds"] = seconds("report", loops)
            runs = Path(folder) / "mlruns"
            found["page_mb"] = round((runs / "reports" / "grow" / "report.html").stat().st_size / 1e6, 2)
            found["database_mb_a_loop"] = round((runs / "mlflow.db").stat().st_size / 1e6 / loops, 2)
            rows.append(found)
            print(json.dumps(found), flush=True)
            (RESULTS / "growth-study.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    for name in ("MLFLOW_TRACKING_URI", "OUROLOOP_OPTUNA_URL"):
        os.environ.pop(name, None)  # they would name your own stores
    what, numbers = sys.argv[1], [int(one) for one in sys.argv[2:]]
    if what == "loop":
        long_loop(*numbers or [2_000])
    elif what == "study":
        large_studies(numbers or [10, 200])
    else:
        ask(what, numbers[0])
