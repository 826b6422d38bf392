"""Hooks of MkDocs: pages from outside docs/, the notebook, and links as GitHub resolves them."""

import json
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
ADDED = {  # by their place in the project
    "README.md": "index.md",
    "data/README.md": "data.md",
    "docs/tutorial.ipynb": "tutorial.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s:#]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any, **_: Any) -> Any:
    for source, page in ADDED.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        text = _notebook(text) if source.endswith(".ipynb") else text
        files.append(File.generated(config, page, content=text))
    listed = re.findall(r"[\w/.-]+\.md", str(config.nav))
    rest = sorted({file.src_uri for file in files.documentation_pages()} - {*listed})
    config.nav = [*config.nav, {"More": rest}] if rest else config.nav  # pages that a user adds
    return files


def _notebook(text: str) -> str:
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    code = "```python\n{}\n```"
    return "\n\n".join(code.format(source) if kind == "code" else source for kind, source in cells)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to other files of the project become their names: the pages do not hold them."""
    own = page.file.src_uri
    source = next((place for place, name in ADDED.items() if name == own), f"docs/{own}")
    parts = re.split(r"(```.*?```)", markdown, flags=re.DOTALL)
    return "".join(
        part if part.startswith("```") else LINK.sub(lambda m: _link(m, source, own), part)
        for part in parts
    )


def _link(match: re.Match[str], source: str, own: str) -> str:
    text, target, anchor = match[1], match[2], match[3] or ""
    place = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    page = ADDED.get(place) or (place[5:] if place.startswith("docs/") else None)
    if page is None or not (place in ADDED or (ROOT / place).is_file()):
        return text if place in text else f"{text} (`{place}`)"
    return f"[{text}]({os.path.relpath(page, posixpath.dirname(own) or '.')}{anchor})"
