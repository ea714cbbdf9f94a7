"""Markdown for MLflow's pages, in which what somebody wrote into a name or a tag is text."""

import re


def as_text(text: str) -> str:
    """Markdown that shows the text as it is: no markup, no HTML, no second line."""
    return re.sub(r"([\\`*_\[\]<>|#!~&])", r"\\\1", " ".join(text.split()))
