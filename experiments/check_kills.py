"""Studies whose processes are killed at random moments end as the undisturbed study.

    python experiments/check_kills.py [--kills=200] [--on=local|ray] [--learner=empirical|network] [--seed=1]

Runs one study of six loops again and again, each time in a root of its own, and sends SIGKILL, SIGTERM, SIGINT, SIGHUP
or SIGSTOP (for 30 s, then SIGCONT) to its driver or one of its workers until the kills are used up; after each kill of
the driver the same command goes on. Then every metric history and every sample is held against an undisturbed run, bit
for bit; each generation must have one run and each step one point, nothing may be RUNNING and no process left. Exit
code 1 if not. 200 kills of the ideal learner take about half an hour, 30 of a network as long.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.science.seeding import stream

LOOP = {"num_generations": 12, "data": {"num_examples": 40, "max_depth": 2}, "sampling": {"max_new_tokens": 20}}
LEARNERS = {
    "empirical": {"model": {"kind": "empirical"}},
    "network": {
        "model": {"num_layers": 1, "num_heads": 2, "hidden_size": 16, "context_length": 32},
        "train": {"num_steps": 12, "batch_size": 8, "learning_rate": 0.01, "num_warmup_steps": 2, "validate_every": 4},
    },
}
STUDY = {"cycles": ["incremental", "balanced"], "synthetic_proportions": [0.5, 1.0], "seeds": [1, 2]}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSTOP)
STOPPED_SECONDS = 30.0


def command(preset: Path, on: str) -> list[str]:
    return [sys.executable, "-m", "ouroloop", "sweep", str(preset), f"--on={on}", "--workers=2"]


def outcome(store: Store) -> dict[str, object]:
    """Every metric history but the times, and every sample, of every loop and generation."""

    def histories(run: Run) -> dict[str, list[tuple[int, float]]]:
        found = {key: run.history(key) for key in run.metrics if not key.endswith(("seconds", "tokens_per_second"))}
        for key, points in found.items():
            steps = [step for step, _ in points]
            assert len(steps) == len(set(steps)), f"{run.id}: {key} has a step twice"
        return found

    found: dict[str, object] = {}
    for loop in store.find(level="loop"):
        name = loop.entity.info.run_name
        assert name not in found, f"{name} has two runs"
        found[name] = histories(loop)
        for generation in store.find(level="generation", parent=loop.id):
            key = f"{name}/{generation.entity.info.run_name}"
            assert key not in found, f"{key} has two runs"
            found[key] = (histories(generation), generation.read_dataset("samples.tsv.gz").to_bytes())
    return found


def descendants(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return children + [one for child in children for one in descendants(child)]


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def workers(pid: int) -> list[int]:
    """Spawned processes of ours, or those of Ray that run a task or wait for one."""
    return [one for one in descendants(pid) if "spawn_main" in title(one) or title(one).startswith("ray::")]


def left_over(root: str) -> list[int]:
    """Processes that were started for this root and still run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if f"OUROLOOP_ROOT={root}\0".encode() in environment and title(int(entry.name)):
                found.append(int(entry.name))
    return found


def strike(process: "subprocess.Popen[bytes]", draw: float, number: signal.Signals) -> bool:
    """Sends the signal to the driver or a worker; whether there was somebody to send it to."""
    victims = [process.pid, *workers(process.pid)]
    victim = victims[int(draw * len(victims))]
    try:
        os.kill(victim, number)
        if number == signal.SIGSTOP:
            time.sleep(STOPPED_SECONDS)
            os.kill(victim, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return True


def disturbed(preset: Path, root: str, on: str, kills: int, seed: int) -> int:
    """Runs the study to its end with at most so many kills; how many there were."""
    rng, done = stream(seed, "kills"), 0
    pause = 3.0 if on == "local" else 6.0
    while True:
        environment = os.environ | {"OUROLOOP_ROOT": root}
        with (Path(root) / "out.log").open("ab") as log:
            process = subprocess.Popen(command(preset, on), env=environment, stdout=log, stderr=log)
        while process.poll() is None:
            time.sleep(2.0 + pause * rng.random())
            if done < kills and process.poll() is None:
                done += strike(process, rng.random(), SIGNALS[int(rng.integers(len(SIGNALS)))])
        if process.returncode == 0:
            return done
        if process.returncode in (1, 2):
            raise SystemExit((Path(root) / "out.log").read_text()[-3_000:])


def check(root: str, expected: dict[str, object]) -> list[str]:
    """What is wrong with a study that has come to its end."""
    os.environ["OUROLOOP_ROOT"] = root
    store, wrong = Store.open(), []
    if outcome(store) != expected:
        wrong.append("its histories or samples are not those of the undisturbed study")
    if store.running():
        wrong.append(f"{len(store.running())} runs are RUNNING")
    deadline = time.monotonic() + 30
    while (left := left_over(root)) and time.monotonic() < deadline:
        time.sleep(0.5)
    if left:
        wrong.append(f"processes are left: {[title(pid)[:80] for pid in left]}")
    return wrong


def main(kills: int, on: str, learner: str, seed: int) -> int:
    for name in ("MLFLOW_TRACKING_URI", "OUROLOOP_OPTUNA_URL"):
        os.environ.pop(name, None)
    with TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        preset = Path(folder) / "killed.yaml"
        preset.write_text(yaml.safe_dump(STUDY | {"loop": LOOP | LEARNERS[learner]}))
        quiet = Path(folder) / "undisturbed"
        quiet.mkdir()
        disturbed(preset, str(quiet), "local", 0, seed)
        os.environ["OUROLOOP_ROOT"] = str(quiet)
        expected, total, number = outcome(Store.open()), 0, 0
        while total < kills:
            number += 1
            root = Path(folder) / f"root-{number}"
            root.mkdir()
            dealt = disturbed(preset, str(root), on, min(12, kills - total), seed * 1_000 + number)
            total += dealt
            wrong = check(str(root), expected)
            print(f"study {number}: {dealt} kills, {total} in all: {'; '.join(wrong) or 'as undisturbed'}", flush=True)
            if wrong:
                return 1
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--on", choices=["local", "ray"], default="local")
    parser.add_argument("--learner", choices=sorted(LEARNERS), default="empirical")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.exit(main(given.kills, given.on, given.learner, given.seed))
