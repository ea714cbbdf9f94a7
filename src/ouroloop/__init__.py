"""ouroloop: the self-consuming training loop, on logic expressions, where truth is decidable.

The picture is in `loop.py`; every other module is one noun of it. Importing this package is cheap:
torch, transformers, mlflow and optuna are imported by the commands that need them.
"""

__version__ = "0.1.0"


class ConfigError(ValueError):
    """One line for the person who wrote the preset or typed the command: what was given, what is allowed."""
