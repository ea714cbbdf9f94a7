"""What somebody else wrote, a model or whoever edits a name or a tag, as plain text: on a terminal, in Markdown."""

import re

# Joiners (U+200C, U+200D) stay: scripts and emoji are written with them
_HIDDEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with whatever would steer a terminal, turn its direction, break its line or be invisible spelled out.

    ASCII control characters become Unicode's pictures of them, others their number; nothing else changes.
    """

    def spelled(found: re.Match[str]) -> str:
        code = ord(found[0])
        return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else f"<U+{code:04X}>"

    return _HIDDEN.sub(spelled, text)


def as_text(text: str) -> str:
    """Markdown that shows the text as it is: no markup, no HTML, no second line."""
    return re.sub(r"([\\`*_\[\]<>|#!~&])", r"\\\1", visible(" ".join(text.split())))
