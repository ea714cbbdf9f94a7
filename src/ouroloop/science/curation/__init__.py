"""The steps of a curation: which of the texts that M_t wrote the next model learns from.

    step       what a step is given, and what it gives back
    checks     a verifier, exact, noisy or short-sighted; the grammar
    repeats    unique
    weights    importance weights that undo the sharpening
    archive    quality-diversity: cells that are filled evenly
    buffer     a share of original or fresh data
    editing    D_{t-1}, some of its tokens written anew

Every module of this package is imported: a new step is a new file here, and a line in a preset (docs/curation.md).
Steps are functions of texts, probabilities and a random stream; none knows the truth unless it says that it `needs` it.
"""

from importlib import import_module
from pkgutil import iter_modules


def find() -> None:
    """Import all modules of this package, which makes their steps known."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")


find()
