"""The page: everything escaped, nothing from a network, and its script at work in a browser without a window."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fastgen.bench import html
from fastgen.bench.environment import environment
from fastgen.bench.rows import Row

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
HOSTILE = '<script>alert("x")</script>@title@'


def rows() -> list[Row]:
    def row(shape: str, candidate: str, value: float, ratio: float | None = None, target: float | None = None) -> Row:
        return Row(
            "an op", "forward", shape, "float32", "cpu", "avx2", candidate, "time", value, value, value, ratio, target=target
        )

    return [
        row("small", "fastgen", 1.0),
        row("small", "dense", 3.0, 3.0, 2.0),
        row("small", "worse", 20.0, 20.0),
        row("large", "fastgen", 1.0),
        row("large", "better", 0.5, 0.5, 1.5),
        row("large", HOSTILE, 1.2, 1.2, 1.5),
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "new" / "report.html"
    html.write(path, {**environment("cpu"), "processor": HOSTILE}, rows())
    return path


class Page(HTMLParser):
    """The rows of each table as they are shown, hidden ones left out; the addresses that elements load from."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.addresses: list[str] = []
        self.sorted: set[tuple[str | None, str | None]] = set()
        self._table = ""
        self._row: list[str] | None = None
        self._shown = self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [given[name] or "" for name in ("src", "href", "srcset", "action", "data") if name in given]
        if tag == "table":
            self._table = given["id"] or ""
            self.tables[self._table] = []
        if tag == "th" and given.get("aria-sort") != "none":
            self.sorted.add((given["data-name"], given["aria-sort"]))
        if tag == "tr":
            self._shown, self._row = "hidden" not in given, None
        self._cell = tag == "td" and self._shown
        if self._cell:
            if self._row is None:
                self._row = []
                self.tables[self._table].append(self._row)
            self._row.append("")

    def handle_data(self, data: str) -> None:
        if self._cell and self._row is not None:
            self._row[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._cell = False


def column(page: Page, table: str, index: int) -> list[str]:
    return [cells[index] for cells in page.tables[table]]


RATIO, AGAINST = 6, 3


def test_the_page_says_what_is_lost_and_missed(page: Path) -> None:
    text = page.read_text()
    assert "fastgen loses 1 of 4 comparisons and reaches 1 of 3 targets." in text
    assert "an op forward, large: 0.50 against better" in text
    parsed = Page(text)
    assert column(parsed, "missed", AGAINST) == ["better", HOSTILE]
    assert column(parsed, "all", RATIO) == ["3.00", "20.00", "0.50", "1.20"]


def test_everything_is_escaped(page: Path) -> None:
    text = page.read_text()
    assert '<script>alert("x")' not in text
    assert HOSTILE in column(Page(text), "all", AGAINST)


def test_nothing_comes_from_a_network(page: Path) -> None:
    text = page.read_text()
    addresses = Page(text).addresses
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest|import\(", text)


def test_no_rows_make_a_page() -> None:
    assert "Nothing was compared." in html.page(environment("cpu"), [])


def browsed(page: Path, fragment: str = "") -> Page:
    """The page as its script has made it."""
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"{page.as_uri()}{fragment}"]
    return Page(subprocess.run(command, capture_output=True, check=True, text=True, timeout=120).stdout)


needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs chromium or chrome on the PATH")


@needs_browser
def test_a_link_sorts_by_number_and_filters(page: Path) -> None:
    found = browsed(page, "#sort=ratio&order=desc&filter=FORWARD%20large")
    assert column(found, "all", RATIO) == ["1.20", "0.50"]
    assert ("ratio", "descending") in found.sorted


@needs_browser
def test_clicks_sort_up_and_then_down_and_numbers_as_numbers(page: Path, tmp_path: Path) -> None:
    for clicks, expected in ((1, ["0.50", "1.20", "3.00", "20.00"]), (2, ["20.00", "3.00", "1.20", "0.50"])):
        clicked = tmp_path / f"{clicks}.html"
        click = "document.querySelector('#all [data-name=ratio] button').click();" * clicks
        clicked.write_text(page.read_text().replace("</body>", f"<script>{click}</script></body>"))
        assert column(browsed(clicked), "all", RATIO) == expected


@needs_browser
def test_typing_and_choosing_leave_the_rows_that_fit(page: Path, tmp_path: Path) -> None:
    typed = tmp_path / "typed.html"
    script = (
        "const set = (name, value) => { const control = document.querySelector(`.filters [name=${name}]`);"
        " control.value = value; control.dispatchEvent(new Event('input')); }; set('filter', 'large'); set('show', 'lost');"
    )
    typed.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    found = browsed(typed)
    assert column(found, "all", AGAINST) == ["better"]
    assert column(found, "missed", AGAINST) == ["better", HOSTILE]
