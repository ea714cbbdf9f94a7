"""What a person can do wrong, apart from everything else: help and completion need nothing more."""


class ConfigError(ValueError):
    """One line for the person who wrote the preset or typed the command: what was given, what is allowed."""
