"""Text of models, candidates and servers made safe to print and to put into a prompt.

Such text is data: it stands on one line or inside a delimiter that it cannot close.
"""

from __future__ import annotations

import re
import unicodedata

_DELIMITER = re.compile(r"<(/?\s*(?:data|source)\b)", re.IGNORECASE)
_UNPRINTABLE = {"Cc", "Cf", "Co", "Cs"}  # controls, invisible marks, private use, surrogates


def one_line(text: str, limit: int = 400) -> str:
    """The text's printable characters on one line, cut with an ellipsis after `limit` of them."""
    line = " ".join(_printable(text, keep="\t\n\r").split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def inline(text: str, limit: int = 80) -> str:
    """A name for a heading or a table: one line that holds no delimiter."""
    return _neutral(one_line(text, limit))


def quote_text(text: str, limit: int = 400) -> str:
    """A short text as `<data>…</data>` on one line."""
    return f"<data>{inline(text, limit)}</data>"


def quote_source(source: str) -> str:
    """Source code as a `<source>` block, kept whole and unchanged but for forged delimiters."""
    code = _neutral(_printable(source, keep="\t\n")).rstrip()
    return f"<source>\n{code}\n</source>"


def _neutral(text: str) -> str:
    return _DELIMITER.sub(r"< \1", text)


def _printable(text: str, keep: str) -> str:
    return "".join(c for c in text if c in keep or unicodedata.category(c) not in _UNPRINTABLE)
