"""ouroloop: the self-consuming training loop, where truth is decidable.

    import ouroloop

    results = ouroloop.run("smoke", {"cycle.kind": "incremental"}, cycle__synthetic_proportion=0.5)
    results.metrics, results.samples(3), results.model(3), results.report()

    cli             the commands: leaderboard, one of them; options, how they are read; api, the same from Python
    console         what a person sees of a running loop
    report/         what came of it, for people
    study/          many loops: a driver, an executor, Optuna
    loop/           one loop, generation after generation: the page to read first
    learner/        a dataset in, a fitted model out
    record/         MLflow, and where things are kept
    science/        functions of texts and datasets
    presets         the files that say what a loop is: preset_files, where they lie; schema, what they may say
    config          what a loop is; errors: what a person can do wrong
    fetching        when the hub is asked; spawning, how processes begin; plain, what others wrote, as plain text
    testbed/        where texts come from, how they are judged

Arrows point downwards. Importing this is cheap: whatever takes long is imported when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ouroloop.api import StudyResults, estimate, load, load_preset, run, sweep
    from ouroloop.config import LoopConfig
    from ouroloop.errors import ConfigError
    from ouroloop.study.config import StudyConfig

__version__ = "0.2.0"
__all__ = ["ConfigError", "LoopConfig", "StudyConfig", "StudyResults", "load"]
__all__ += ["estimate", "load_preset", "run", "sweep"]

_HOMES = {"ConfigError": "errors", "LoopConfig": "config", "StudyConfig": "study.config"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
