"""What finished loops of a leaderboard came to, from the record of runs or from a file that another machine committed.

The file has for each loop its fingerprint, the commits of the code that computed it, and the measures that the board
is made of: a value for each generation from 1, null where there is none. For a loop that failed it has no measures.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ouroloop.errors import ConfigError
from ouroloop.record.history import Curves, by_metric, history, read_entries
from ouroloop.record.run import Run

RESULTS = Path("experiments") / "results"
"""Where the file is, relative to the working directory, as presets are."""


@dataclass(frozen=True)
class Outcome:
    """What one loop came to."""

    fingerprint: str
    curves: Curves
    commits: tuple[str, ...]
    """Of the code that computed its generations."""
    processor: str
    """The one that the loop began on; seconds of another kind are not comparable."""
    about: Mapping[str, Any]
    """Method, cycle and seed, as the file has them; empty for a run."""
    has_failed: bool = False
    """A failed loop has no curves: how far it came is no score."""

    @property
    def is_filed(self) -> bool:
        """Whether it was read from a file."""
        return bool(self.about)

    @classmethod
    def of_run(cls, run: Run, keys: Sequence[str]) -> "Outcome":
        entries, has_failed = read_entries(run), run.status == "FAILED"
        curves = {} if has_failed else history(run, keys) if entries is None else by_metric(entries, keys)
        commits = tuple(dict.fromkeys(one.commit for one in entries or () if one.commit))
        commits = commits or (run.tag("commit") or "unknown",)
        return cls(run.tag("fingerprint") or "", curves, commits, run.tag("processor") or "unknown", {}, has_failed)

    def as_record(self, **about: Any) -> dict[str, Any]:
        """The entry for the file; `about` gives method, cycle and seed where the outcome is not from there."""
        last = max((t for values in self.curves.values() for t in values), default=0)
        curves = {
            key: [values.get(t) for t in range(1, last + 1)]
            for key, values in self.curves.items()
            if any(t > 0 for t in values)  # D_0 is generation 0
        }
        return {**(self.about or about), "fingerprint": self.fingerprint, "commits": list(self.commits),
                "processor": self.processor, **({"has_failed": True} if self.has_failed else {}),
                "curves": curves}  # fmt: skip


def file_of(name: str, folder: Path = RESULTS) -> Path:
    """The file of the leaderboard of this name, which the terminal and the page both read."""
    return folder / f"{name}.json"


def read_filed(path: Path) -> dict[str, Outcome]:
    """The loops of a leaderboard's file by fingerprint; none where there is no file.

    Raises:
        ConfigError: it is not the file of a leaderboard.
    """
    try:
        loops = json.loads(path.read_text(encoding="utf-8")).get("loops", [])
        found = [_read(one) for one in loops]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not a leaderboard's file ({error}); delete it, and all is run again") from None
    return {one.fingerprint: one for one in found}


def _read(one: Mapping[str, Any]) -> Outcome:
    curves = {
        str(key): {t: float(value) for t, value in enumerate(values, 1) if value is not None}
        for key, values in one["curves"].items()
    }
    about = {"method": str(one["method"]), "cycle": str(one["cycle"]), "seed": int(one["seed"])}
    commits, processor, has_failed = map(str, one["commits"]), str(one["processor"]), bool(one.get("has_failed"))
    return Outcome(str(one["fingerprint"]), curves, tuple(commits), processor, about, has_failed)
