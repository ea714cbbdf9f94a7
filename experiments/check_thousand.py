"""What does the driver cost a study of 1,000 loops?

    python experiments/check_thousand.py [LOOPS] [RESULTS]

Runs loops of the ideal learner through the driver, and before and after it a sample of the same loops as `ouroloop run`
runs them, each in a root of its own: the difference is the driver's share of a loop, start, table, answer and plots
included. It is in processor time, which other processes lengthen less; wall-clock time stands beside it. It is printed
with the peak memory after a tenth of the loops and at the end, the memory kept for each loop, and the time that
`status` takes, its start included. Exit code 1 if these are over 50 ms, over a quarter more memory, over 10 kB, or over
2 s of processor time. They are also written into the JSON file RESULTS.

Kept is by how much the process grows from a fifth of the loops to the last one, measured after a garbage collection
each time: what is only not yet collected is not kept. Such garbage lies in cycles that SQLAlchemy's statements and
MLflow's transactions leave, and Python collects them when they are a quarter of all.
"""

import gc
import json
import os
import resource
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from ouroloop.loop.attempt import run_attempt
from ouroloop.record.track import Store
from ouroloop.study.config import StudyConfig
from ouroloop.study.driver import run_study

SAMPLE = 60


def study(loops: int) -> StudyConfig:
    loop = {"num_generations": 2, "data": {"num_examples": 20, "max_depth": 2}, "model": {"kind": "empirical"}}
    return StudyConfig.model_validate({"synthetic_proportions": [0.5], "seeds": list(range(loops)), "loop": loop})


def most_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Lines(StringIO):
    """What the study prints; at some of its loops, reads how much memory the process has."""

    def __init__(self, loops: int) -> None:
        super().__init__()
        self._at, self._begun = (loops // 5, loops - 1), 0
        self.resident_kb: dict[int, int] = {}
        self.kept_kb: dict[int, int] = {}

    def write(self, text: str) -> int:
        if ": generations 1 to " in text:
            self._begun += 1
            if self._begun in self._at:
                self.resident_kb[self._begun] = self._now_kb()
                gc.collect()
                self.kept_kb[self._begun] = self._now_kb()
        return super().write(text)

    def _now_kb(self) -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024

    def kept_per_loop_kb(self) -> float:
        (first, before), (last, after) = self.kept_kb.items()
        return (after - before) / (last - first)


class Clock:
    """Seconds since it was made: of this process, and on the wall."""

    def __init__(self) -> None:
        self._begun = self._now()

    def _now(self) -> tuple[float, float]:
        return time.process_time(), time.perf_counter()

    def each(self, count: int) -> tuple[float, float]:
        processor, wall = ((now - begun) / count for now, begun in zip(self._now(), self._begun, strict=True))
        return processor, wall


def bare(folder: str) -> tuple[float, float]:
    """Seconds of a loop that no driver runs."""
    os.environ["OUROLOOP_ROOT"] = folder
    store = Store.open()
    loops = study(SAMPLE + 1).loops()
    run_attempt(loops[-1], store, name="warm", study="bare")
    parent = store.create("study", None, {"level": "study", "study": "bare"})
    clock = Clock()
    for loop in loops[:SAMPLE]:
        run_attempt(loop, store, name=loop.label, study="bare", parent=parent)
    return clock.each(SAMPLE)


def status_seconds(folder: str) -> tuple[float, float]:
    """Seconds of `ouroloop status`, its start included: of the processor, and on the wall."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "ouroloop", "status", "thousand"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main(loops: int, results: Path | None = None) -> int:
    with TemporaryDirectory() as folder:
        before = bare(f"{folder}/before")
        os.environ["OUROLOOP_ROOT"] = f"{folder}/driven"
        lines = Lines(loops)
        run_study(study(loops // 10), "thousand", Console(file=lines))
        early, clock = most_mb(), Clock()
        run_study(study(loops), "thousand", Console(file=lines))
        driven, driven_wall = clock.each(loops - loops // 10)
        late, (status, status_wall) = most_mb(), status_seconds(folder)
        after = bare(f"{folder}/after")  # a machine that others use is not equally fast all the time
        kept = lines.kept_per_loop_kb()
        own, own_wall = (sum(pair) / 2 for pair in zip(before, after, strict=True))
    print(f"a loop takes {own * 1e3:.0f} ms by itself and {driven * 1e3:.0f} ms in the study, with start and results:")
    print(f"the driver's share is {(driven - own) * 1e3:.0f} ms ({(driven_wall - own_wall) * 1e3:.0f} ms on the clock)")
    print(f"memory {early:.0f} MB after {loops // 10} loops, {late:.0f} MB after {loops}; {kept:.1f} kB kept of a loop")
    print(f"status takes {status:.2f} s ({status_wall:.2f} s on the clock)")
    if results is not None:
        row = {"loops": loops, "own_seconds": own, "own_wall_seconds": own_wall, "driven_seconds": driven,
               "driven_wall_seconds": driven_wall, "early_mb": early, "late_mb": late,
               "resident_kb": lines.resident_kb, "kept_kb": lines.kept_kb, "kept_per_loop_kb": kept,
               "status_seconds": status, "status_wall_seconds": status_wall}  # fmt: skip
        results.write_text(json.dumps(row, indent=1) + "\n")
    return 0 if driven - own < 0.05 and late < 1.25 * early and kept < 10 and status < 2 else 1


if __name__ == "__main__":
    for name in ("MLFLOW_TRACKING_URI", "OUROLOOP_OPTUNA_URL"):
        os.environ.pop(name, None)  # they would name your own stores
    given = sys.argv[1:]
    sys.exit(main(int(given[0]) if given else 1_000, *map(Path, given[1:])))
