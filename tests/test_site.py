"""The rendered book: complete, readable without a network, from a folder, on a phone, in the dark.

The book is built once into a temporary folder; ``LABKIT_SITE=_build/html`` tests a ready build.
The tests at the end need playwright and an installed Chromium, and are skipped without.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import browser as headless
import pytest
from bs4 import BeautifulSoup

from labkit.claims import read_notebook

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
NOT_LOADED = {"canonical", "next", "prev", "search", "index", "author", "license"}
PHONE_WIDTH = headless.PHONE["width"]

sys.path.insert(0, str(ROOT / "book" / "_ext"))
import vendor  # noqa: E402


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built book."""
    if ready := os.environ.get("LABKIT_SITE"):
        return Path(ready).resolve()
    out = tmp_path_factory.mktemp("site")
    book = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(ROOT)]
    options = ["--path-output", str(out), "-W", "-n", "--keep-going"]
    built = subprocess.run([*book, *options], capture_output=True, text=True, timeout=1200)
    assert built.returncode == 0, (built.stdout + built.stderr)[-3000:]
    return out / "_build" / "html"


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[Path, BeautifulSoup]:
    """Every page of the book, parsed."""
    paths = sorted([*site.glob("book/*.html"), *site.glob("chapters/*.html"), site / "search.html"])
    return {path: BeautifulSoup(path.read_text("utf-8"), "html.parser") for path in paths}


def is_remote(url: str) -> bool:
    return bool(urlsplit(url).netloc)


# ---------------------------------------------------------------------- what the files say


def test_every_chapter_and_appendix_is_there(pages):
    names = {path.stem for path in pages}
    assert {path.stem for path in CHAPTERS} <= names
    assert {name[:10] for name in names if name.startswith("appendix")} == {
        f"appendix_{letter}" for letter in "abcdef"
    }


def test_no_page_refers_to_a_resource_elsewhere(pages):
    remote = [
        (path.name, str(tag)[:120])
        for path, page in pages.items()
        for name, attribute in LOADS.items()
        for tag in page.find_all(name)
        if is_remote(tag.get(attribute) or "") and not NOT_LOADED & set(tag.get("rel") or [])
    ]
    assert not remote


def test_no_style_sheet_refers_to_a_resource_elsewhere(site):
    remote = re.compile(r"url\(\s*['\"]?(?:https?:)?//|@import\s+['\"](?:https?:)?//")
    assert not [css.name for css in site.rglob("*.css") if remote.search(css.read_text("utf-8"))]


def test_every_image_has_a_text_alternative(pages):
    bare = [
        (path.name, img.get("src"))
        for path, page in pages.items()
        for img in page.select("article.bd-article img")
        if len((img.get("alt") or "").strip()) < 20
    ]
    assert not bare


def test_every_diagram_has_a_text_alternative(pages):
    diagrams = [(p.name, d.text) for p, page in pages.items() for d in page.select("pre.mermaid")]
    assert diagrams
    assert not [name for name, text in diagrams if not re.search(r"accDescr\s*:\s*\S.{20}", text)]


def test_every_internal_link_leads_somewhere(pages):
    places = {path: {tag.get(name) for tag in page.find_all(True) for name in ("id", "name")}
              for path, page in pages.items()}
    dead = []
    for path, page in pages.items():
        for link in page.find_all("a", href=True):
            parts = urlsplit(link["href"])
            if parts.scheme or parts.netloc or link["href"] == "#":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            fragment = unquote(parts.fragment)
            if not target.is_file() or (fragment and fragment not in places.get(target, {fragment})):
                dead.append((path.name, link["href"]))
    assert not dead


def test_every_page_has_one_heading_of_first_order(pages):
    wrong = {path.name: len(page.select("article h1")) for path, page in pages.items()}
    assert {name: n for name, n in wrong.items() if n != 1 and name != "search.html"} == {}


def test_launch_buttons_lead_to_the_repository_or_are_not_there(pages):
    for path in (p for p in pages if p.parent.name == "chapters"):
        buttons = pages[path].select(".dropdown-launch-buttons a")
        assert all(re.search(r"/\w+.*01_overview|labpath|urlpath", a["href"]) for a in buttons)
        assert not [a for a in buttons if "executablebooks/jupyter-book" in a["href"]]


def test_the_ledger_lists_every_claim_and_links_to_it(site, pages):
    ledger = pages[site / "book" / "appendix_c_ledger.html"]
    listed = {link.text for link in ledger.select("table.ledger a")}
    claims = {claim.id for chapter in CHAPTERS for claim in read_notebook(chapter)}
    assert claims
    assert listed == claims


def test_appendix_a_explains_every_key_of_the_labs_configurations(pages, site):
    appendix = pages[site / "book" / "appendix_a_tools.html"]
    named = {part for code in appendix.find_all("code") for part in re.findall(r"\w+", code.text)}

    def keys(config: dict) -> Iterator[str]:
        for key, value in config.items():
            yield key
            if isinstance(value, dict):
                yield from keys(value)

    used = {key for p in ROOT.glob("labs/*/*.json") for key in keys(json.loads(p.read_text()))}
    assert used
    assert used - named == set()


def test_pages_do_not_name_the_machine_they_were_built_on(pages):
    home = re.compile(rf"/home/|/root/|/Users/|site-packages|{re.escape(str(ROOT))}/")
    assert not [(p.name, m[0]) for p, page in pages.items() if (m := home.search(page.text))]


# ------------------------------------------------------------------- fetching the scripts


def asset(tmp_path: Path, *sources: vendor.Source) -> vendor.Asset:
    return vendor.Asset("thing", "1.0", "thing.js", ("thing.js",), sources)


def test_without_npm_the_reason_names_it(monkeypatch, tmp_path):
    monkeypatch.setattr(vendor, "VENDOR", tmp_path)
    monkeypatch.setattr(vendor.shutil, "which", lambda _name: None)
    reason = vendor.fetch(asset(tmp_path, vendor.Source("npm", "thing@1.0", "sha512-x", "")))
    assert reason == "thing 1.0 is missing: npm is not installed."


def test_an_archive_with_another_checksum_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setattr(vendor, "VENDOR", tmp_path)
    forge = [sys.executable, "-c", "open('thing-1.0.tgz', 'wb').write(b'something else')"]
    monkeypatch.setattr(vendor, "command", lambda _source: forge)
    thing = asset(tmp_path, vendor.Source("npm", "thing@1.0", "sha256-AAAA", "package/"))
    assert "pinned checksum" in vendor.fetch(thing)
    assert not thing.ready()


# ---------------------------------------------------------------------- what a browser shows

needs_browser = pytest.mark.skipif(bool(headless.why_not()), reason=headless.why_not())


@pytest.fixture(scope="module")
def chromium():
    with headless.browser() as chromium:
        yield chromium


DRAWN = """() => ({
    formulas: document.querySelectorAll(".math").length,
    set: document.querySelectorAll("mjx-container").length,
    diagrams: document.querySelectorAll("pre.mermaid").length,
    drawn: document.querySelectorAll("pre.mermaid svg").length,
    as_text: [...document.querySelectorAll(".as-text")].map(note => note.textContent).join(),
    errors: document.querySelectorAll("mjx-merror, .error-icon").length,
    fonts: [...document.fonts].filter(
        font => font.family.startsWith("MJX") && font.status === "loaded").length,
})"""


def problems(chromium, path: Path) -> list[str]:
    """What goes wrong when a page is opened from its folder: errors, requests, what is not drawn."""
    with headless.page(chromium) as tab:
        found = headless.watch(tab)
        headless.visit(tab, path)
        drawn = tab.evaluate(DRAWN)
    if "Formulas" not in drawn["as_text"] and (
        drawn["set"] < drawn["formulas"] or (drawn["formulas"] and not drawn["fonts"])
    ):
        found.append(f"formulas not drawn, or not with the book's fonts: {drawn}")
    if "Diagrams" not in drawn["as_text"] and drawn["drawn"] < drawn["diagrams"]:
        found.append(f"diagrams not drawn: {drawn}")
    if drawn["errors"]:
        found.append(f"{drawn['errors']} formulas or diagrams have errors")
    return found


@needs_browser
def test_pages_open_from_a_folder_and_ask_for_nothing_else(chromium, pages):
    """Formulas and diagrams are drawn, and no request leaves the folder."""
    found = {path.name: problems(chromium, path) for path in pages}
    assert {name: what for name, what in found.items() if what} == {}


@needs_browser
@pytest.mark.parametrize("word", ["perplexity", "困惑度", "gradient_clipping"])
def test_search_works_from_a_folder(chromium, site, word):
    with headless.page(chromium) as tab:
        errors = []
        tab.on("console", lambda m: m.type == "error" and errors.append(m.text))
        tab.goto(f"{(site / 'search.html').as_uri()}?q={word}")
        tab.wait_for_selector("#search-results li", timeout=120_000)
        assert not errors


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_page_scrolls_sideways_on_a_phone(chromium, pages, dark):
    wide = {}
    with headless.page(chromium, viewport=headless.PHONE, dark=dark) as tab:
        for path in pages:
            headless.visit(tab, path)
            width, mode, light = tab.evaluate(
                """() => [document.documentElement.scrollWidth,
                          document.documentElement.dataset.theme,
                          getComputedStyle(document.body).backgroundColor.match(/\\d+/g)
                              .reduce((sum, x) => sum + Number(x), 0) / 3]"""
            )
            assert mode == ("dark" if dark else "light")
            assert (light < 64) if dark else (light > 192)
            if width > PHONE_WIDTH:
                wide[path.name] = width
    assert not wide


@needs_browser
def test_the_landing_page_fits_one_screen(chromium, site):
    with headless.page(chromium) as tab:
        headless.visit(tab, site / "book" / "index.html")
        bottoms = tab.evaluate(
            "() => [...document.querySelectorAll('.sd-card')]"
            ".map(card => card.getBoundingClientRect().bottom)"
        )
        assert len(bottoms) == 3
        assert max(bottoms) <= headless.DESKTOP["height"]


@needs_browser
def test_the_keyboard_reaches_the_text_and_the_doors(chromium, site):
    with headless.page(chromium) as tab:
        headless.visit(tab, site / "book" / "index.html")
        tab.keyboard.press("Tab")
        assert "Skip to main content" in tab.evaluate("document.activeElement.textContent")
        tab.keyboard.press("Enter")
        reached = set()
        for _ in range(40):
            tab.keyboard.press("Tab")
            reached.add(tab.evaluate("document.activeElement.getAttribute('href') || ''"))
        doors = tab.evaluate("[...document.querySelectorAll('.sd-card a')].map(a => a.getAttribute('href'))")
        assert len(doors) == 3
        assert set(doors) <= reached


@needs_browser
def test_every_question_is_asked_before_its_answer_is_shown(chromium, pages):
    """What ``labkit.claims`` writes and what the page's script looks for fit together."""
    asking = {path: len(page.select(".labkit-ask")) for path, page in pages.items()}
    for path in filter(asking.get, asking):
        with headless.page(chromium) as tab:
            tab.goto(path.as_uri())
            assert tab.locator(".labkit-ask form").count() == asking[path]
            answered = tab.locator(".labkit-waiting .labkit-claim:is([data-predicted], [data-measured])")
            assert answered.count() == asking[path]


LESS_OF_THE_SAME = """for (const body of document.querySelectorAll("table.ledger > tbody"))
    [...body.rows].slice(12).forEach(row => row.remove());
for (const code of [...document.querySelectorAll("div.highlight pre")].slice(12))
    code.textContent = code.textContent;  // without the colours of its words"""


@needs_browser
@pytest.mark.parametrize("name", ["index", "predictions", "appendix_c_ledger", "01_overview"])
def test_no_reader_meets_a_barrier(chromium, pages, name):
    """axe-core finds nothing serious, on a desk and on a phone, light and dark, with depth open."""
    if missing := vendor.fetch(vendor.AXE):
        pytest.skip(missing)
    axe = (vendor.AXE.folder / vendor.AXE.script).read_text("utf-8")
    (path,) = (path for path in pages if path.stem == name)
    with headless.page(chromium) as tab:
        headless.visit(tab, path)
        tab.evaluate(LESS_OF_THE_SAME)
        tab.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
        assert headless.barriers_in_every_look(tab, axe) == {}
