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
def page(chromium, *, viewport: dict = DESKTOP, dark: bool = False, javascript: bool = True) -> Iterator:
    """A fresh page in the light or the dark mode of the book."""
    mode = "dark" if dark else "light"
    context = chromium.new_context(viewport=viewport, color_scheme=mode, java_script_enabled=javascript)
    context.add_init_script(f"localStorage.mode = '{mode}'; localStorage.theme = '{mode}'")
    context.set_default_timeout(120_000)  # in ms; a busy machine draws slowly
    yield context.new_page()
    context.close()


def watch(tab) -> list[str]:
    """A list that fills with what goes wrong in the page: errors, and requests that leave the folder."""
    found: list[str] = []
    local = ("file:", "data:", "blob:")
    tab.on("request", lambda r: None if r.url.startswith(local) else found.append(r.url))
    tab.on("requestfailed", lambda r: found.append(f"failed: {r.url}"))
    tab.on("console", lambda m: found.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda error: found.append(str(error)))
    return found


def visit(tab, path: Path) -> None:
    """Open a file and wait until its formulas and diagrams are drawn (at most two minutes)."""
    tab.goto(path.resolve().as_uri(), wait_until="load")
    tab.evaluate("window.MathJax?.startup?.promise")
    tab.wait_for_function(
        """() => !window.mermaid || [...document.querySelectorAll("pre.mermaid")].every(
                    diagram => diagram.querySelector("svg"))""",
        timeout=120_000,
    )


AXE_RUN = """async ([axe, rules]) => {
    if (!window.axe) (0, eval)(axe);
    const options = {preload: false, resultTypes: ["violations"], ...(rules.length ? {runOnly: rules} : {})};
    const {violations} = await window.axe.run(document, options);
    return violations.filter(({impact}) => ["serious", "critical"].includes(impact)).flatMap(
        ({id, nodes}) => nodes.map(({target, html}) => [id, String(target), html.slice(0, 200)]));
}"""
OF_COLOUR = ["color-contrast", "link-in-text-block"]
OF_THE_THEME = [  # (rule, part of the element): what the theme does wrong is not ours
    ("label-content-name-mismatch", "theme-switch-button"),
    ("label-content-name-mismatch", "search-button-field"),
]


def barriers(tab, axe: str, rules: list[str] = ()) -> list[list[str]]:
    """What axe-core (its source is ``axe``) calls serious or critical: [rule, selector, HTML] each."""
    found = tab.evaluate(AXE_RUN, [axe, list(rules)])
    return [fault for fault in found
            if not any(fault[0] == rule and part in fault[2] for rule, part in OF_THE_THEME)]


def settle(tab, seconds: float = 10) -> None:
    """Wait until the theme has made scrollable code focusable; what it never does is left for axe to find."""
    for _ in range(int(5 * seconds)):
        if tab.evaluate("""() => [...document.querySelectorAll("pre[tabindex='-1']")].every(
                           code => code.scrollWidth <= code.clientWidth)"""):
            return
        tab.wait_for_timeout(200)


def barriers_in_every_look(tab, axe: str) -> dict[str, list]:
    """The page's barriers on a desk and on a phone, light and dark; in the dark only colours differ."""
    tab.add_style_tag(content="* { transition: none !important; animation: none !important; }")
    found = {}
    for name, size in (("desktop", DESKTOP), ("phone", PHONE)):
        tab.set_viewport_size(size)
        tab.wait_for_timeout(400)  # the theme follows a new width after 300 ms, on a busy machine later
        settle(tab)
        for mode, rules in (("light", []), ("dark", OF_COLOUR)):
            tab.evaluate("mode => { document.documentElement.dataset.theme = mode; }", mode)
            found[f"{name}, {mode}"] = barriers(tab, axe, rules)
    return {look: faults for look, faults in found.items() if faults}


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
