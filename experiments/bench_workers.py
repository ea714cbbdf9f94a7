"""How many times the generations per minute of one worker do two workers make?

    python experiments/bench_workers.py [ROUNDS] [GENERATIONS]

Runs studies at smoke scale, one thread for each worker, one and two workers in turn, each in a store of its own; a
worker has one loop with its own seed, so nothing is shared. The pace is that of the time in which all
workers are within a loop: start-up and the end, when one waits for the other, are left out.
"""

import os
import subprocess
import sys
from statistics import median
from tempfile import TemporaryDirectory

from ouroloop.record.track import Store


def pace(workers: int, generations: int) -> float:
    """Generations per minute."""
    with TemporaryDirectory() as root:
        os.environ["OUROLOOP_ROOT"] = root
        for name in ("MLFLOW_TRACKING_URI", "OUROLOOP_OPTUNA_URL"):
            os.environ.pop(name, None)
        changes = [f"--seeds={list(range(workers))}", "--synthetic_proportions=[0.5]"]
        changes += [f"--loop.num_generations={generations}", "--loop.train.num_threads=1"]
        command = [sys.executable, "-m", "ouroloop", "sweep", "sweep-smoke", f"--workers={workers}", *changes]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        store = Store.open()
        spans = [
            [
                (run.entity.info.start_time, run.entity.info.end_time)
                for run in store.find(level="generation", parent=loop.id)
            ]
            for loop in store.find(level="loop")
        ]
    assert len(spans) == workers
    begin = max(min(start for start, _ in loop) for loop in spans)
    finish = min(max(end for _, end in loop) for loop in spans)
    within = sum(max(0, min(end, finish) - max(start, begin)) / (end - start) for loop in spans for start, end in loop)
    return within / ((finish - begin) / 60_000)


def main(rounds: int, generations: int) -> None:
    ratios = []
    for number in range(1, rounds + 1):
        one, two = pace(1, generations), pace(2, generations)
        ratios.append(two / one)
        print(f"round {number}: {one:.1f} generations a minute with one worker, {two:.1f} with two: {two / one:.2f}")
    print(f"median ratio {median(ratios):.2f} of {rounds} rounds, on {os.cpu_count()} cores")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(*(given + [3, 10][len(given) :]))
