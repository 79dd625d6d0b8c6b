"""Writing the report's pages, each only when what it shows has changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from zoo_bench import __version__
from zoo_bench.errors import ConfigError
from zoo_bench.report.paths import ALWAYS, ASSETS, PICTURES, is_cell_page
from zoo_bench.whole import write_whole

PAGES = ".zoo-bench-report.json"
# What may be there before the first page is: what GitHub Pages is told by, and what a full disk left.
OF_PAGES = {".git", ".nojekyll", "CNAME", ASSETS}
OWN_ASSETS = ("site.css", "site.js")


@dataclass(frozen=True)
class Page:
    """A page: where it is, its template, and what it shows. `key`: says the same as long as it would be the same.

    `values` are asked for only when it is written. They may write files beside the page.
    """

    path: str
    template: str
    key: str
    values: Callable[[], Mapping[str, Any]]


@dataclass
class Site:
    """The folder of a report. `templates`: the folder of its templates and assets."""

    folder: Path
    templates: Path
    written: int = 0
    _known: dict[str, str] = field(default_factory=dict)

    def begin(self) -> None:
        """Make the folder, and copy what every page needs. Raises ConfigError where that cannot be done."""
        listed = self.folder / PAGES
        others = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        if set(others) - OF_PAGES and not listed.is_file():
            raise ConfigError(f"{self.folder} holds something else than a report", "name an empty folder, or a new one")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._known = _pages(listed) if listed.is_file() else {}
            self._list()
            (self.folder / ASSETS).mkdir(exist_ok=True)
            for name in OWN_ASSETS:
                shutil.copyfile(self.templates / name, self.folder / ASSETS / name)
            plotly = resources.files("plotly") / "package_data" / "plotly.min.js"
            target = self.folder / ASSETS / "plotly.min.js"
            if not target.is_file() or target.stat().st_size != len(plotly.read_bytes()):
                target.write_bytes(plotly.read_bytes())
        except OSError as error:
            raise ConfigError(f"{self.folder}: cannot be written: {error.strerror or error}", "name another") from None

    def write(self, pages: Sequence[Page], seen: Callable[[], None]) -> None:
        """Write the pages that have changed; call `seen` after each. Pages of former calls that are not here go."""
        environment = Environment(
            loader=FileSystemLoader(self.templates),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        made_by = self._made_by()
        keys = {page.path: hashlib.sha256(f"{made_by}{page.key}".encode()).hexdigest() for page in pages}
        try:
            for page in pages:
                target = self.folder / page.path
                if self._known.get(page.path) != keys[page.path] or not target.is_file():
                    self._known.pop(page.path, None)
                    root = "../" * page.path.count("/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    text = environment.get_template(page.template).render({"root": root, **page.values()})
                    write_whole(target, text)
                    self.written += 1
                    self._known[page.path] = keys[page.path]
                seen()
            for path in self._known.keys() - keys.keys():
                _take_away((self.folder / path).parent)
                del self._known[path]
        finally:
            self._list()

    def _list(self) -> None:
        """Keep which pages are there, and what each was made from."""
        write_whole(self.folder / PAGES, json.dumps(self._known, indent=1) + "\n")

    def _made_by(self) -> str:
        """Return the digest of what pages are made by."""
        files = [*sorted(Path(__file__).parent.glob("*.py")), *sorted(self.templates.glob("*.j2"))]
        return hashlib.sha256(b"".join([__version__.encode(), *(path.read_bytes() for path in files)])).hexdigest()


def _take_away(folder: Path) -> None:
    """Take away what a cell's page was; a folder that holds something else stays."""
    for file in (*folder.glob("index.html"), *folder.glob(PICTURES)):
        file.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _pages(listed: Path) -> dict[str, str]:
    """Read which pages are there, and what they were made from: of cells, since no other page ever goes."""
    try:
        found = json.loads(listed.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    known = found.items() if isinstance(found, dict) else ()
    return {path: str(key) for path, key in known if path in ALWAYS or is_cell_page(path)}
