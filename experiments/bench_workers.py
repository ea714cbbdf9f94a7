"""How many times as many generations per minute do two workers make as one?

    python experiments/bench_workers.py [ROUNDS] [GENERATIONS] [PRESET]

Runs a study of four loops with their own seeds, so that nothing is shared, one thread for each worker, with one and
with two workers in turn, each in a store of its own. The pace is that of the whole command: from the shell to the
report, with the start of every process in it. With only two loops, two workers would take as long as the longer one,
and a ratio of 2 would be out of reach: texts, and so generations, differ in length from seed to seed.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import yaml

from ouroloop.record.track import Store

LOOPS = 4


def pace(workers: int, generations: int, preset: str) -> float:
    """Generations per minute."""
    with TemporaryDirectory() as root:
        os.environ["OUROLOOP_ROOT"] = root
        for name in ("MLFLOW_TRACKING_URI", "OUROLOOP_OPTUNA_URL"):
            os.environ.pop(name, None)
        Store.open()  # made beforehand: MLflow's migrations run once for each root
        loop = {"base": preset, "num_generations": generations, "train": {"num_threads": 1}}
        study = {"synthetic_proportions": [0.5], "seeds": list(range(LOOPS)), "loop": loop}
        path = Path(root) / "bench-workers.yaml"
        path.write_text(yaml.safe_dump(study))
        command = [sys.executable, "-m", "ouroloop", "sweep", str(path), f"--workers={workers}"]
        begin = perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return LOOPS * generations / (perf_counter() - begin) * 60


def main(rounds: int, generations: int, preset: str) -> None:
    ratios = []
    for number in range(1, rounds + 1):
        one, two = pace(1, generations, preset), pace(2, generations, preset)
        ratios.append(two / one)
        print(f"round {number}: {one:.1f} generations a minute with one worker, {two:.1f} with two: {two / one:.2f}")
    print(f"{preset}: median ratio {median(ratios):.2f} of {rounds} rounds, on {os.cpu_count()} cores")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("generations", type=int, nargs="?", default=10)
    parser.add_argument("preset", nargs="?", default="laptop")
    main(**vars(parser.parse_args()))
