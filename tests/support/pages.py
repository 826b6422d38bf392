"""HTML pages as their readers get them: elements, tables, and the layout in a browser."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Elements(HTMLParser):
    """Every element in order: tag, attributes, and the text inside it."""

    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(self.found[-1])

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, "elements are closed in order"

    def handle_data(self, data):
        for _, _, text in self.open:
            text.append(data)


def parse(html):
    parser = Elements()
    parser.feed(html)
    assert not parser.open
    return [(tag, attrs, "".join(text).strip()) for tag, attrs, text in parser.found]


def named(elements, *tags):
    return [(attrs, text) for tag, attrs, text in elements if tag in tags]


def number(cell):
    """A cell's value; NaN where it has none."""
    cell = cell.replace("−", "-").rstrip("*")
    if cell in ("n/a", "–"):
        return np.nan
    return float(cell.rstrip("%")) / 100 if cell.endswith("%") else float(cell)


def rows_of(elements, caption):
    """The texts of the table with this caption, a frame with its titles."""
    start = next(i for i, e in enumerate(elements) if e[0] == "caption" and e[2] == caption)
    rows, titles = [], []
    for tag, attrs, text in elements[start + 1 :]:
        if tag in ("table", "caption", "svg"):
            break
        if tag == "tr":
            rows.append([])
        if tag == "th" and attrs["scope"] == "col":
            titles.append(text)
        elif tag in ("th", "td"):
            rows[-1].append(text)
    return pd.DataFrame(rows[1:], columns=titles)


# What a page that is `measure`d shows wrongly: {"width": .., "outside": [], "over": [], ..}.
LAYOUT = """page => {
  const boxes = element => element.getBoundingClientRect()
  const told = {width: page.documentElement.scrollWidth, outside: [], over: [], small: []}
  for (const chart of page.querySelectorAll("svg.chart")) {
    const name = chart.getAttribute("aria-labelledby").split(" ")[0]
    const frame = boxes(chart), texts = [...chart.querySelectorAll("text")]
    const scale = frame.width / chart.viewBox.baseVal.width
    texts.forEach((text, i) => {
      const a = boxes(text), label = name + ": " + text.textContent
      if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 1 ||
          a.bottom > frame.bottom + 1) told.outside.push(label)
      if (parseFloat(getComputedStyle(text).fontSize) * scale < 8) told.small.push(label)
      for (const other of texts.slice(i + 1)) {
        const b = boxes(other)
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left)
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top)
        // A line's box is higher than its letters.
        if (wide > 1 && high > 0.35 * Math.min(a.height, b.height))
          told.over.push(label + " / " + other.textContent)
      }
    })
  }
  return told
}"""
