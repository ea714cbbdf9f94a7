"""What does the driver cost a study of 1,000 loops?

    python experiments/check_thousand.py [LOOPS] [WORKERS]

Runs loops of the ideal learner through the driver, and a sample of the same loops without it, each in a root of its
own: the difference is the driver's share of a loop. Prints it with the memory after a tenth and at the end, and how
long `status` takes. Exit code 1 if that is over 50 ms, over a quarter more memory, or over 2 s.
"""

import os
import resource
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from ouroloop.loop.loop import run_loop
from ouroloop.record.track import Store
from ouroloop.study.config import StudyConfig
from ouroloop.study.driver import run_study

SAMPLE = 60


def study(loops: int) -> StudyConfig:
    loop = {"num_generations": 2, "data": {"num_examples": 20, "max_depth": 2}, "model": {"kind": "empirical"}}
    return StudyConfig.model_validate({"synthetic_proportions": [0.5], "seeds": list(range(loops)), "loop": loop})


def resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bare(folder: str) -> float:
    """Seconds of a loop that no driver runs."""
    os.environ["OUROLOOP_ROOT"] = folder
    store = Store.open()
    loops = study(SAMPLE + 1).loops()
    run_loop(loops[-1], store, name="warm", study="bare")
    parent = store.create("study", None, {"level": "study", "study": "bare"})
    begin = time.perf_counter()
    for loop in loops[:SAMPLE]:
        run_loop(loop, store, name=loop.label, study="bare", parent=parent)
    return (time.perf_counter() - begin) / SAMPLE


def main(loops: int, workers: int) -> int:
    with TemporaryDirectory() as folder:
        own = bare(f"{folder}/bare")
        os.environ["OUROLOOP_ROOT"] = f"{folder}/driven"
        lines = Console(file=StringIO())
        run_study(study(loops // 10), "thousand", lines, workers)
        early = resident_mb()
        begin = time.perf_counter()
        run_study(study(loops), "thousand", lines, workers)
        seconds = (time.perf_counter() - begin) / (loops - loops // 10) * workers
        late = resident_mb()
        begin = time.perf_counter()
        command = [sys.executable, "-m", "ouroloop", "status", "thousand"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=Path(folder))
        status = time.perf_counter() - begin
    print(f"a loop takes {own * 1e3:.0f} ms by itself and {seconds * 1e3:.0f} ms in the study, with start and results:")
    print(f"the driver's share is {(seconds - own) * 1e3:.0f} ms")
    print(f"memory {early:.0f} MB after {loops // 10} loops, {late:.0f} MB after {loops}; status takes {status:.2f} s")
    return 0 if seconds - own < 0.05 and late < 1.25 * early and status < 2 else 1


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    sys.exit(main(*(given + [1_000, 1][len(given) :])))
