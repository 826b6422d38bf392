r"""Names from data and files, made harmless for what they are written to: one function per output.

A label, a run or a patient can be called anything: `=1+1`, `a|b`, `a$\frac{$b`, escape sequences
of a terminal, 5,000 characters.
"""

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from fluoroscope.console import console_text

if TYPE_CHECKING:
    import pandas as pd

SPACES = re.compile(r"[\t\n\r\u2028\u2029]+")
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # the latter of full width
# Markdown that would become a link, HTML, code, emphasis or mathematics.
MARKDOWN = re.compile(
    r"[\\`$]|<(?=[a-zA-Z/!?])|&(?=#?\w+;)|(?<=\])\(|!(?=\[)|\*(?=[\w*])|(?<!\w)_(?=\w)|~(?=~)|:(?=//)"
)
# What begins a heading, a quotation, a list, a rule or the definition of a link.
BLOCK = re.compile(r"^(\d*)([#>\[]|[+*-](?=[\s*-]|$)|[.)](?=\s|$))")


def one_line(text: str) -> str:
    """`console_text` in one line: for pages, tables and figures."""
    return console_text(SPACES.sub(" ", text))


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning and a tail that tells it from others with the same beginning.

    >>> shortened("a" * 99, 12), shortened("a" * 98 + "b", 12)
    ('aaaaaaa…1328', 'aaaaaaa…5312')
    """
    if len(text) <= limit:
        return text
    tail = sha256(text.encode(errors="surrogatepass")).hexdigest()[:4]
    return f"{text[: limit - 5]}…{tail}"


def figure_text(text: str, limit: int = 60) -> str:
    """Text in a figure, which must be drawn with `parse_math` off."""
    line = shortened(one_line(text), limit)
    return f" {line}" if line.startswith("_") else line  # a legend leaves out what begins with _


def markdown_text(text: str) -> str:
    r"""Text that Markdown shows as it is.

    >>> markdown_text("- [a](http://b) $x$")
    '\\- [a]\\(http\\://b) \\$x\\$'
    """
    return BLOCK.sub(r"\1\\\2", _inline(text))


def markdown_cell(text: str) -> str:
    """Text in a table of Markdown."""
    return _inline(text).replace("|", r"\|")


def _inline(text: str) -> str:
    return MARKDOWN.sub(r"\\\g<0>", one_line(text))


def csv_cell(value: Any) -> Any:
    r"""A cell of a CSV file: text that a spreadsheet would run as a formula gets a ' in front.

    Source: OWASP, CSV Injection.

    >>> csv_cell("=1+1"), csv_cell("-0.5"), csv_cell(-0.5)
    ("'=1+1", '-0.5', -0.5)
    """
    if not isinstance(value, str):
        return value
    text = console_text(value)
    runs = text.lstrip().startswith(FORMULA) or value[:1] in ("\t", "\r", "\n")
    return f"'{text}" if runs and not _is_number(text) else text


def csv_table(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with `csv_cell` of its names and of its columns of text."""
    texts = table.select_dtypes(exclude=["number", "bool", "datetime"])
    cells = {str(name): table[name].astype(object).map(csv_cell) for name in texts}
    return table.assign(**cells).rename(columns=csv_cell)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
