"""Studies whose processes are killed at random moments end like an undisturbed one.

    python experiments/check_kills.py [--kills=200] [--on=local|ray] [--learner=empirical|network] [--seed=1]
                                      [--results=FILE]

Runs one study of six loops again and again, each time in a root of its own, and sends SIGKILL, SIGTERM, SIGINT, SIGHUP
or SIGSTOP (for 30 s, then SIGCONT) to its driver, its workers or several of them at once until the kills are used up;
after each kill of the driver the same command goes on. A quarter come at any moment, the start included;
before each of the others, loops have gone on since the last one. Then every metric history and every sample is compared
with an undisturbed run, bit for bit; each generation must have one run that was finished once, by a witness in the
database, and each step one point; nothing may be RUNNING, and no process left. Exit code 1 if not. With `--results`
each study is noted in a JSON file when it is done, and the same command goes on after the studies that are noted there;
commands that differ in seed may share the file and run side by side.
"""

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer

import yaml
from filelock import FileLock
from numpy.random import Generator

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
KILLS_PER_STUDY = 20
PATIENCE_SECONDS = 900.0  # a study that takes longer with no kill left hangs


def command(preset: Path, on: str) -> list[str]:
    return [sys.executable, "-m", "ouroloop", "sweep", str(preset), f"--on={on}", "--workers=2"]


def outcome(root: Path) -> dict[str, object]:
    """Every metric history except times, and every sample, of every loop and generation."""
    os.environ["OUROLOOP_ROOT"] = str(root)
    store, histories = Store.open(), defaultdict[str, dict[str, list[tuple[int, float]]]](lambda: defaultdict(list))
    with closing(sqlite3.connect(root / "mlruns" / "mlflow.db")) as connection:
        query = "SELECT run_uuid, key, step, value FROM metrics ORDER BY run_uuid, key, step"
        for run, key, step, value in connection.execute(query):
            if not key.endswith(("seconds", "tokens_per_second")):
                assert step not in dict(histories[run][key]), f"{run}: {key} has step {step} twice"
                histories[run][key].append((step, value))
    found: dict[str, object] = {}
    for loop in store.find(level="loop"):
        assert loop.name not in found, f"{loop.name} has two runs"
        found[loop.name] = histories[loop.id]
        for generation in store.find(level="generation", parent=loop.id):
            key = f"{loop.name}/{generation.name}"
            assert key not in found, f"{key} has two runs"
            found[key] = (histories[generation.id], generation.read_dataset("samples.tsv.gz").to_bytes())
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
    own = ("ray::run_one", "ray::IDLE")
    return [one for one in descendants(pid) if "spawn_main" in title(one) or title(one).startswith(own)]


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


def witness(root: Path) -> None:
    """Make the store, and have its database note every change of a run's status, whoever makes it."""
    os.environ["OUROLOOP_ROOT"] = str(root)
    Store.open()
    with closing(sqlite3.connect(root / "mlruns" / "mlflow.db")) as connection:
        connection.executescript(
            "CREATE TABLE seen (run TEXT, status TEXT);"
            "CREATE TRIGGER see AFTER UPDATE OF status ON runs WHEN OLD.status IS NOT NEW.status "
            "BEGIN INSERT INTO seen VALUES (NEW.run_uuid, NEW.status); END;"
        )


def finished_twice(root: Path, store: Store) -> list[str]:
    """Generations that did not finish exactly once: computed again although they were finished, as a rule."""
    with closing(sqlite3.connect(root / "mlruns" / "mlflow.db")) as connection:
        seen = Counter(run for (run,) in connection.execute("SELECT run FROM seen WHERE status = 'FINISHED'"))
    return [run.name for run in store.find(level="generation") if seen[run.id] != 1]


def progress(root: Path) -> Counter[str]:
    """How many generations each loop has finished."""
    query = (
        "SELECT value FROM seen JOIN tags ON run = run_uuid WHERE status = 'FINISHED' AND key = 'mlflow.parentRunId'"
    )
    with closing(sqlite3.connect(root / "mlruns" / "mlflow.db", timeout=60)) as connection:
        return Counter(loop for (loop,) in connection.execute(query))


def await_progress(process: "subprocess.Popen[bytes]", root: Path, before: Counter[str]) -> None:
    """Wait until two loops have gone on, or one if the other takes long.

    A loop whose workers are killed in one generation again and again would fail, as it should.
    """
    begun = time.monotonic()
    while process.poll() is None:
        moved = len(progress(root) - before)
        if moved >= 2 or (moved == 1 and time.monotonic() > begun + 10):
            return
        time.sleep(0.5)


def aim(process: "subprocess.Popen[bytes]", rng: Generator) -> list[tuple[int, signal.Signals]]:
    """Who gets which signal: the driver, workers, or several at once, as when a terminal is closed."""
    chances = [(process.pid, 1 / 3), *((pid, 1 / 2) for pid in workers(process.pid))]
    victims = [pid for pid, chance in chances if rng.random() < chance]
    rng.shuffle(victims)
    return [(pid, SIGNALS[int(rng.integers(len(SIGNALS)))]) for pid in victims]


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; return whether the process was still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def strike(process: "subprocess.Popen[bytes]", victims: list[tuple[int, signal.Signals]]) -> Counter[str]:
    """Send the signals; count those whose process was there. What is stopped goes on later, the rest meanwhile."""
    done = Counter[str]()
    for pid, number in victims:
        if send(pid, number):
            done[f"{number.name} to {'the driver' if pid == process.pid else 'a worker'}"] += 1
            if number == signal.SIGSTOP:
                Timer(STOPPED_SECONDS, send, (pid, signal.SIGCONT)).start()
    return done


def disturbed(preset: Path, root: Path, on: str, kills: int, seed: int) -> Counter[str]:
    """Run the study to its end with so many kills, or some less or more; return which they were."""
    rng, done = stream(seed, "kills"), Counter[str]()
    witness(root)
    environment = os.environ | {"OUROLOOP_ROOT": str(root), "RAY_worker_niceness": "0"}  # else others starve Ray's
    while True:
        with (root / "out.log").open("ab") as log:
            process = subprocess.Popen(command(preset, on), env=environment, stdout=log, stderr=log)
        before = progress(root)
        while process.poll() is None and done.total() < kills:
            if rng.random() < 3 / 4:  # otherwise at any moment, also as the driver starts
                await_progress(process, root, before)
            time.sleep(rng.uniform(0, 3))
            before = progress(root)
            done += strike(process, aim(process, rng) if process.poll() is None else [])
        process.wait(PATIENCE_SECONDS)
        if process.returncode == 0:
            return done
        if process.returncode in (1, 2):
            raise SystemExit((root / "out.log").read_text()[-3_000:])


def check(root: Path, expected: dict[str, object]) -> list[str]:
    """What is wrong with a study that has ended."""
    found, store, wrong = outcome(root), Store.open(), []
    odd = [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
    if odd:
        wrong.append(f"not as in the undisturbed study: {', '.join(odd[:5])}")
    if again := finished_twice(root, store):
        wrong.append(f"not finished just once: {', '.join(again[:5])}")
    if store.running():
        wrong.append(f"{len(store.running())} runs are RUNNING")
    deadline = time.monotonic() + 180  # one that is just starting does not yet watch its driver
    while (left := left_over(str(root))) and time.monotonic() < deadline:
        time.sleep(0.5)
    if left:
        wrong.append(f"processes are left: {[title(pid)[:80] for pid in left]}")
    return wrong


def noted(results: Path | None) -> list[dict[str, object]]:
    return json.loads(results.read_text()) if results is not None and results.exists() else []


def note(results: Path, study: dict[str, object]) -> None:
    with FileLock(results.with_suffix(".lock")):
        studies = sorted([*noted(results), study], key=lambda one: [str(one[key]) for key in ("on", "learner", "seed")])
        results.write_text(json.dumps(studies, indent=1) + "\n")


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def main(kills: int, on: str, learner: str, seed: int, results: Path | None = None) -> int:
    for name in ("MLFLOW_TRACKING_URI", "OUROLOOP_OPTUNA_URL"):
        os.environ.pop(name, None)
    own = {"on": on, "learner": learner, "seed": seed}
    before = [study for study in noted(results) if {key: study[key] for key in own} == own]
    total = sum(sum(study["kills"].values()) for study in before)  # type: ignore[attr-defined]
    with TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        preset = Path(folder) / "killed.yaml"
        preset.write_text(yaml.safe_dump(STUDY | {"loop": LOOP | LEARNERS[learner]}))
        quiet = Path(folder) / "undisturbed"
        quiet.mkdir()
        disturbed(preset, quiet, "local", 0, seed)
        expected, number = outcome(quiet), len(before)
        while total < kills:
            number += 1
            root = Path(folder) / f"root-{number}"
            root.mkdir()
            begun = time.monotonic()
            dealt = disturbed(preset, root, on, min(KILLS_PER_STUDY, kills - total), seed * 1_000 + number)
            total += dealt.total()
            wrong = check(root, expected)
            print(
                f"study {number}: {dealt.total()} kills, {total} in all: {'; '.join(wrong) or 'as undisturbed'}",
                flush=True,
            )
            if results is not None:
                study = own | {"number": number, "commit": commit(), "kills": dict(sorted(dealt.items()))}
                study |= {"seconds": round(time.monotonic() - begun), "wrong": wrong}
                note(results, study)
            if wrong:
                print((root / "out.log").read_text()[-3_000:])
                print(f"all of it is in {root.rename(Path(folder).with_name(f'wrong-{os.getpid()}'))}")
                return 1
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--on", choices=["local", "ray"], default="local")
    parser.add_argument("--learner", choices=sorted(LEARNERS), default="empirical")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    sys.exit(main(given.kills, given.on, given.learner, given.seed, given.results))
