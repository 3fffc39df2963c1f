"""A headless Chromium for the tests of the rendered book, and pictures to look at.

python tests/browser.py _build/html pictures/    every page: light, dark, phone
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def executable() -> str | None:
    """An installed Chromium or Chrome: ``CHROMIUM``, else the first found on the PATH."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def why_not() -> str:
    """Why no browser test can run here; "" if they can."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed: run `make env`"
    return "" if executable() else "no Chromium found: install chromium, or set CHROMIUM to it"


@contextmanager
def browser() -> Iterator:
    """A playwright Browser."""
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=executable(), args=quiet)
        yield chromium
        chromium.close()


@contextmanager
def page(chromium, *, viewport: dict = DESKTOP, dark: bool = False) -> Iterator:
    """A fresh page in the light or the dark mode of the book."""
    mode = "dark" if dark else "light"
    context = chromium.new_context(viewport=viewport, color_scheme=mode)
    context.add_init_script(f"localStorage.mode = '{mode}'; localStorage.theme = '{mode}'")
    yield context.new_page()
    context.close()


def visit(tab, path: Path) -> None:
    """Open a file and wait until its formulas and diagrams are drawn (at most 20 s)."""
    tab.goto(path.resolve().as_uri(), wait_until="load")
    tab.evaluate("window.MathJax?.startup?.promise")
    tab.wait_for_function(
        """() => !window.mermaid || [...document.querySelectorAll("pre.mermaid")].every(
                    diagram => diagram.querySelector("svg"))""",
        timeout=20_000,
    )


def pictures(site: Path, out: Path) -> None:
    """Write a full-page screenshot of every page in each of the three looks."""
    out.mkdir(parents=True, exist_ok=True)
    looks = {"light": (DESKTOP, False), "dark": (DESKTOP, True), "phone": (PHONE, True)}
    with browser() as chromium:
        for path in sorted([*site.glob("book/*.html"), *site.glob("chapters/*.html")]):
            for look, (viewport, dark) in looks.items():
                with page(chromium, viewport=viewport, dark=dark) as tab:
                    visit(tab, path)
                    tab.screenshot(path=out / f"{path.stem}-{look}.png", full_page=True)


if __name__ == "__main__":
    pictures(Path(sys.argv[1]), Path(sys.argv[2]))
