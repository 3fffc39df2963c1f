"""What a page folds, asks and lets a reader move: on a small book of its own, in a browser.

Held here: depth, claims, questions asked beforehand, the page of predictions, the line under a check, the
ledger's groups, minutes, and the temperature slider; by keyboard, from a folder, without JavaScript.
"""

import json
import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import browser as headless
import pytest
import reading_book
import torch
from bs4 import BeautifulSoup

sys.path.insert(0, str(reading_book.ROOT / "book" / "_ext"))
import temperature
import vendor

CHAPTER, PREDICTIONS, LEDGER = "chapters/91_form.html", "book/predictions.html", "book/ledger.html"
KEY = "labkit-predictions"
STORED = f"JSON.parse(localStorage.getItem('{KEY}') || '{{}}')"
OPEN = "[...document.querySelectorAll('details.depth')].map(fold => fold.open)"


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small book's pages."""
    source = tmp_path_factory.mktemp("book")
    reading_book.write(source)
    return reading_book.build(source, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def html(book: Path):
    """page(name): a page of the book, parsed."""
    return lambda name: BeautifulSoup((book / name).read_text("utf-8"), "html.parser")


# ---------------------------------------------------------------------- what the files say


def test_depth_is_folded_behind_its_heading_its_result_and_its_minutes(html):
    first, second = html(CHAPTER).select("details.depth")
    assert first.parent.name == "section"
    assert [child.name for child in first.parent.find_all(recursive=False)] == ["h4", "p", "details"]
    assert first.find_previous_sibling("p").text == "In a line: it is."
    assert "Show" in first.summary.text
    assert "this depth · 3 min" in first.summary.text  # 300 words and a claim
    assert first.select_one("#ch91-deep")
    assert "1 min" in second.summary.text
    for outside in ("#ch91-asked", "#part-91-1-a", "#remember", "#after-depth"):
        assert html(CHAPTER).select_one(outside).find_parent("details") is None


def test_a_claims_box_stands_before_its_folded_code(html):
    for cell in html(CHAPTER).select(".tag_claim.tag_hide-input"):
        box, fold = cell.select_one(".labkit-claim"), cell.select_one("details.hide")
        assert fold in box.find_all_next("details")
        assert "Show how it is measured" in fold.summary.text
        assert not fold.summary.get("aria-label")
    figure_like = html(CHAPTER).select_one(".tag_check")
    assert figure_like.find(recursive=False).name == "details"


def test_the_code_of_a_question_is_left_out(html):
    asks = html(CHAPTER).select(".tag_ask")
    assert len(asks) == 3
    assert not [ask for ask in asks if ask.select_one(".cell_input")]
    assert "predict(" not in html(CHAPTER).text


def test_a_check_says_how_many_wrong_answers_it_knows(html):
    (note,) = html(CHAPTER).select(".check-note")
    assert note.text == "This check tells apart 3 known wrong answers."
    assert "tag_check" in note.find_previous_sibling()["class"]


def test_chapter_minutes_are_counted_from_the_cells(html):
    text = html("book/index.html").text
    assert "Chapter 91: main line 2 min · exercises 3 min · depth 3 min." in text
    assert "Chapter 2: reading 2 min." in text


def test_the_ledger_keeps_the_main_line_and_depth_apart(html):
    older, form = html(LEDGER).select("table.ledger")
    assert not older.select("th[scope=rowgroup]")
    main, deep = form.select("tbody")
    assert (main.th.text, deep.th.text) == ("Main line", "Depth")
    assert [a.text for a in main.select("a")] == ["ch91-asked", "ch91-zero", "ch91-bound", "ch91-unasked"]
    assert [a.text for a in deep.select("a")] == ["ch91-deep"]
    assert "Control, which must fail: of noise 7" in main.text
    assert [row.td.text for row in main.select("td table tr")[1:]] == ["a", "b"]


def test_without_javascript_the_slider_is_a_table(html):
    box = html("book/index.html").select_one(".labkit-temperature")
    assert json.loads(box.script.text) == reading_book.NEXT_BYTES
    rows = [[cell.text for cell in row.find_all(["th", "td"])] for row in box.select("tbody tr")]
    shares = torch.softmax(torch.tensor(reading_book.NEXT_BYTES[0]["logits"]) / 2.0, dim=0)
    assert len(rows) == temperature.ROWS
    assert rows[0][0] == "n"
    assert rows[0][3] == f"{100 * shares[0]:.1f} %"
    assert rows[1][0] == "⏎"


@pytest.mark.parametrize("record", [
    "", "{}", '{"next_bytes": [{"context": "a", "tokens": ["b"], "logits": []}]}',
])
def test_a_slider_without_its_record_is_a_warning(tmp_path, monkeypatch, record):
    (tmp_path / "benchmarks").mkdir()
    if record:
        (tmp_path / temperature.RECORD).write_text(record)
    said = []
    monkeypatch.setattr(temperature.logger, "warning", lambda text, *args, **_: said.append(text % args))
    env = SimpleNamespace(app=SimpleNamespace(srcdir=tmp_path), note_dependency=lambda _path: None)
    directive = SimpleNamespace(env=env, get_location=lambda: "here")
    assert temperature.TemperatureDirective.run(directive) == []
    assert said == ["benchmarks/history.json has no 'next_bytes': no temperature slider"]


# ---------------------------------------------------------------------- what a browser shows

needs_browser = pytest.mark.skipif(bool(headless.why_not()), reason=headless.why_not())


@pytest.fixture(scope="module")
def chromium():
    with headless.browser() as chromium:
        yield chromium


@pytest.fixture
def opened(chromium, book):
    """opened(page): a context with the page of that name, in which nothing may go wrong."""

    @contextmanager
    def open_page(name: str, *, fragment: str = "", **looks) -> Iterator:
        with headless.page(chromium, **looks) as tab:
            wrong = headless.watch(tab) if looks.get("javascript", True) else []  # blocked scripts fail
            tab.goto((book / name).as_uri() + fragment, wait_until="load")
            yield tab
            assert not wrong

    return open_page


def shown(tab, selector: str) -> bool:
    """True if the element takes part in the page: not in a closed fold, not hidden."""
    return tab.locator(selector).evaluate("element => element.checkVisibility()")


@needs_browser
def test_depth_opens_and_closes_by_keyboard(opened):
    with opened(CHAPTER) as tab:
        assert tab.evaluate(OPEN) == [False, False]
        assert not shown(tab, "#ch91-deep")
        tab.locator("details.depth summary").first.focus()
        tab.keyboard.press("Enter")
        assert tab.evaluate(OPEN) == [True, False]
        assert shown(tab, "#ch91-deep")
        tab.keyboard.press("Enter")
        assert tab.evaluate(OPEN) == [False, False]


@needs_browser
@pytest.mark.parametrize(("fragment", "folds"), [
    ("#depth-why-x-is-x", [True, False]), ("#inside-depth", [True, False]), ("#ch91-deep", [True, False]),
    ("#depth-a-second-look", [False, True]), ("#after-depth", [False, False]), ("#nowhere", [False, False]),
])
def test_depth_opens_when_the_address_points_into_it(opened, fragment, folds):
    with opened(CHAPTER, fragment=fragment) as tab:
        assert tab.evaluate(OPEN) == folds


@needs_browser
def test_a_link_within_the_page_opens_depth_as_often_as_it_is_used(opened):
    with opened(CHAPTER) as tab:
        for _ in range(2):
            tab.locator("p a[href='#inside-depth']").press("Enter")
            tab.wait_for_function(f"{OPEN}[0]")
            box = tab.locator("#a-derivation").bounding_box()
            assert 0 <= box["y"] < headless.DESKTOP["height"]
            tab.locator("details.depth > summary").first.press("Enter")
            assert tab.evaluate(OPEN) == [False, False]


@needs_browser
def test_depth_is_printed(opened):
    with opened(CHAPTER) as tab:
        tab.locator("details.depth summary").last.click()
        tab.evaluate("() => { addEventListener('beforeprint', () => { window.asPrinted = " + OPEN + "; }) }")
        tab.pdf()
        assert tab.evaluate("window.asPrinted") == [True, True]
        tab.wait_for_function(f"JSON.stringify({OPEN}) === '[false,true]'")


@needs_browser
def test_a_word_found_by_search_opens_the_depth_it_stands_in(opened):
    with opened("search.html", fragment="?q=quicksilver") as tab:
        tab.locator("#search-results li a").first.click()
        tab.wait_for_selector("details.depth .highlighted")
        tab.wait_for_function(f"{OPEN}[0]")
        assert tab.evaluate(OPEN) == [True, False]
        assert "highlight" not in tab.url  # so that a copied address marks nothing


@needs_browser
def test_without_javascript_everything_can_be_read(opened):
    with opened(CHAPTER, javascript=False) as tab:
        assert tab.locator(".labkit-ask").first.inner_text().endswith(reading_book.QUESTION)
        assert tab.locator("#ch91-asked").is_visible()
        assert not tab.locator("#ch91-deep").is_visible()
        tab.emulate_media(media="print")
        assert tab.locator("#ch91-deep").bounding_box()["height"] > 10
        tab.emulate_media(media="screen")
        tab.locator("details.depth summary").first.click()
        assert tab.locator("#ch91-deep").is_visible()
    with opened(PREDICTIONS, javascript=False) as tab:
        assert "switched off" in tab.locator("article noscript").inner_text()
        assert reading_book.QUESTION in tab.locator("table.labkit-predictions").inner_text()


# ---------------------------------------------------------------------- predict first


@pytest.fixture(scope="module")
def scripts(chromium, book):
    """A page on which the scripts' functions can be called."""
    with headless.page(chromium) as tab:
        tab.goto((book / "book" / "index.html").as_uri())
        yield tab


@needs_browser
@pytest.mark.parametrize(("written", "number"), [
    ("1e6", 1e6), ("1,000", 1000), ("1 000", 1000), ("12 345 678", 12345678), ("1,234.5", 1234.5),
    ("3.5e-2", 0.035), (" -7 ", -7), ("−7", -7), (".5", 0.5), ("1/3", 1 / 3), ("1,000 / 4", 250),
    ("40 bytes", 40), ("2_000", 2000), ("", None), ("many", None), ("3,5", None), ("1,00", None),
    ("1/0", None), ("1/2/3", None), ("1e999", None), ("1 2", None), ("0x10", None),
])
def test_a_number_is_read_as_people_write_it(scripts, written, number):
    assert scripts.evaluate("text => parseNumber(text, 'bytes')", written) == number


@needs_browser
@pytest.mark.parametrize(("guess", "right", "said"), [
    (100, 100, "Right."), (104, 100, "Right, within 5 %."), (-95.1, -100, "Right, within 5 %."),
    (0, 0, "Right."), (200, 100, "Too high by a factor of 2."), (30, 100, "Too low by a factor of 3.3."),
    (1e6, 1, "Too high by a factor of 1,000,000."), (5, 0, "Too high by 5 bytes."),
    (-5, 10, "Too low by 15 bytes."), (0, 10, "Too low by 10 bytes."), (-20, -10, "Too low by 10 bytes."),
])
def test_how_far_off_is_said_in_a_sentence(scripts, guess, right, said):
    assert scripts.evaluate("([g, r]) => compareNumbers(g, r, 'bytes').said", [guess, right]) == said


@needs_browser
def test_a_guess_at_a_bound_is_compared_with_what_was_measured(opened):
    with opened(CHAPTER) as tab:
        tab.get_by_label("Your guess (%)").focus()
        tab.keyboard.type("20")
        tab.keyboard.press("Enter")
        assert tab.locator(".labkit-answer p").first.inner_text() == (
            "You said 20 %. We measured 40 %. Too low by a factor of 2.")


@needs_browser
def test_a_prediction_by_keyboard_is_kept_and_forgotten(opened):
    with opened(CHAPTER) as tab:
        assert not shown(tab, "#ch91-asked")
        assert shown(tab, "#ch91-unasked")
        tab.get_by_label("Your guess (numbers)").focus()
        tab.keyboard.type("about a million")
        tab.keyboard.press("Enter")
        assert tab.locator("[role=alert]").first.inner_text().startswith("Please write one number")
        assert tab.evaluate("document.activeElement.getAttribute('aria-invalid')") == "true"
        assert not shown(tab, "#ch91-asked")
        tab.keyboard.press("Control+A")
        tab.keyboard.type("1e6")
        tab.keyboard.press("Enter")
        assert tab.evaluate("document.activeElement.className") == "labkit-answer"
        assert tab.locator(".labkit-answer p").first.inner_text() == (
            "You said 1,000,000 numbers. We predicted 437,760 numbers and measured 437,760 numbers. "
            "Too high by a factor of 2.3.")
        assert shown(tab, "#ch91-asked")
        assert tab.evaluate(STORED)["ch91-asked"]["value"] == 1e6
        tab.get_by_role("link", name="All your predictions").press("Enter")
        tab.wait_for_url("**/predictions.html*")
        table = tab.locator("table.labkit-predictions")
        assert "1,000,000 numbers" in table.inner_text()
        assert "#" not in tab.url  # the answer came along in the address, and was taken out of it

        tab.go_back()
        tab.reload()
        assert "You said 1,000,000" in tab.locator(".labkit-answer").inner_text()
        assert tab.evaluate("document.activeElement === document.body")
        tab.locator(".labkit-answer").focus()
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.textContent") == "Forget this answer"
        tab.keyboard.press("Enter")
        assert tab.evaluate("document.activeElement.id") == "guess-ch91-asked"
        assert tab.evaluate(STORED) == {}
        assert not shown(tab, "#ch91-asked")


@needs_browser
def test_outputs_between_question_and_claim_wait_too(opened):
    with opened(CHAPTER) as tab:
        printed = tab.get_by_text("between", exact=True)
        assert not printed.is_visible()
        ask = tab.locator(".labkit-ask[data-claim=ch91-zero]")
        ask.get_by_role("button", name="Show without a guess").press("Enter")
        assert printed.is_visible()
        assert tab.evaluate(STORED)["ch91-zero"]["value"] is None
        assert "you have not guessed" in tab.locator(".labkit-answer").inner_text()
        tab.emulate_media(media="print")
        assert shown(tab, "#ch91-asked")  # on paper nothing waits


@needs_browser
def test_a_link_to_a_claim_that_waits_leads_to_its_question(opened):
    with opened(CHAPTER, fragment="#ch91-zero", viewport={"width": 1280, "height": 200}) as tab:
        tab.wait_for_function("scrollY > 0")
        box = tab.locator(".labkit-ask[data-claim=ch91-zero]").bounding_box()
        assert 0 <= box["y"] < 200
        assert not shown(tab, "#ch91-zero")


@needs_browser
def test_where_nothing_can_be_stored_the_page_says_so_and_works(chromium, book):
    with headless.page(chromium) as tab:
        tab.add_init_script("""const get = Storage.prototype.getItem;
            Storage.prototype.getItem = function (key) {
                if (key === "labkit-predictions") throw new DOMException("no", "SecurityError");
                return get.call(this, key);
            };""")
        tab.goto((book / CHAPTER).as_uri())
        tab.fill("#guess-ch91-asked", "1/2")
        tab.keyboard.press("Enter")
        assert "does not let the page keep your answer" in tab.locator(".labkit-answer").inner_text()
        assert shown(tab, "#ch91-asked")


def answers(**values: float | None) -> str:
    """A stored text with these answers."""
    return json.dumps({id.replace("_", "-"): {"value": value, "at": "2026-01-01T00:00:00.000Z"}
                       for id, value in values.items()})


SAID = "document.querySelector('[role=status]').textContent"


@needs_browser
def test_the_page_of_predictions_lists_compares_saves_and_loads(opened, tmp_path):
    with opened(PREDICTIONS) as tab:
        rows = tab.locator("table.labkit-predictions tbody tr")
        assert rows.all_inner_texts()[0].split("\t")[1:] == ["not answered yet", "–", "–", "–"]
        assert tab.locator(".labkit-score").inner_text() == "You have not answered any question yet."

        saved = tmp_path / "mine.json"
        saved.write_text(answers(ch91_asked=450_000, ch91_zero=None, ch90_gone=3))
        with tab.expect_file_chooser() as chooser:
            tab.get_by_role("button", name="Load a file").press("Enter")
        chooser.value.set_files(saved)
        tab.wait_for_function(f"{SAID}.includes('3 new here')")
        assert rows.all_inner_texts()[0].split("\t") == [
            reading_book.QUESTION, "450,000 numbers", "437,760", "437,760", "Right, within 5 %."]
        assert rows.all_inner_texts()[1].split("\t")[1:] == ["no guess", "0", "0", "–"]
        assert tab.locator(".labkit-score").inner_text() == "1 of 1 within 10 %."

        with tab.expect_download() as download:
            tab.get_by_role("button", name="Save as a file").press("Enter")
        assert download.value.suggested_filename == f"{KEY}.json"
        assert json.loads(Path(download.value.path()).read_text()) == json.loads(saved.read_text())

        saved.write_text("not JSON")
        with tab.expect_file_chooser() as chooser:
            tab.get_by_role("button", name="Load a file").click()
        chooser.value.set_files(saved)
        tab.wait_for_function(f"{SAID}.includes('holds no answers')")
        assert len(tab.evaluate(STORED)) == 3


@needs_browser
def test_erasing_all_predictions_asks_once_more(opened):
    with opened(PREDICTIONS) as tab:
        stored = [KEY, answers(ch91_asked=1, ch91_zero=0)]
        tab.evaluate("([key, text]) => localStorage.setItem(key, text)", stored)
        tab.reload()
        for last, left in (("Escape", 2), ("Enter", 2), ("Shift+Tab Enter", 0)):
            tab.get_by_role("button", name="Erase all").focus()
            tab.keyboard.press("Enter")
            assert "Erase all 2 answers for good?" in tab.locator("article").inner_text()
            assert tab.evaluate("document.activeElement.textContent") == "Keep them"
            for key in last.split():
                tab.keyboard.press(key)
            assert tab.evaluate("document.activeElement.textContent") == "Erase all"
            assert len(tab.evaluate(STORED)) == left
        assert tab.locator(".labkit-score").inner_text() == "You have not answered any question yet."


@needs_browser
def test_the_score_counts_near_and_rough_guesses(scripts):
    factors = [1.0, 1.1, 1.5, 2.0, 3.0, None]
    said = scripts.evaluate("factors => score(factors.map(factor => ({factor})))", factors)
    assert said == "2 of 6 within 10 %, 2 more within a factor of 2."


# ---------------------------------------------------------------------- temperature


@needs_browser
def test_the_sliders_arithmetic_is_torchs(scripts):
    generator = torch.Generator().manual_seed(0)
    for temp in (0.1, 0.7, 1.0, 2.0):
        logits = torch.randn(256, generator=generator, dtype=torch.float64) * 8
        want = torch.softmax(logits / temp, dim=0)
        shares, bits = scripts.evaluate(
            "([logits, t]) => { const p = labkitTemperature.softmax(logits, t);"
            " return [p, labkitTemperature.entropyBits(p)]; }", [logits.tolist(), temp])
        for ours in (shares, temperature.softmax(logits.tolist(), temp)):
            assert ours == pytest.approx(want.tolist(), rel=1e-12, abs=1e-300)
        entropy = torch.distributions.Categorical(probs=want).entropy().item() / math.log(2)
        assert bits == pytest.approx(entropy, rel=1e-12)


@needs_browser
def test_the_slider_draws_with_its_probabilities(scripts):
    shares = [0.5, 0.2, 0.0, 0.3]
    drawn = scripts.evaluate(
        "p => [0, 0.49, 0.5, 0.69, 0.71, 0.999, 1].map(r => labkitTemperature.sample(p, () => r))", shares)
    assert drawn == [0, 0, 1, 1, 3, 3, 0]


@needs_browser
def test_the_slider_moves_by_keyboard(opened):
    with opened("book/index.html") as tab:
        slider = tab.get_by_label("Temperature")
        said = tab.locator(".labkit-temperature > [role=status]").first
        before = said.inner_text()
        slider.focus()
        tab.keyboard.press("Home")
        assert slider.input_value() == "0.1"
        share = torch.softmax(torch.tensor(reading_book.NEXT_BYTES[0]["logits"]) / 0.1, dim=0)[0]
        assert said.inner_text().endswith(f"the likeliest byte has {100 * share:.1f} %.")
        assert said.inner_text() != before
        assert tab.locator(".labkit-bars tbody tr").count() == 12
        tab.get_by_role("button", name="Draw 20").press("Enter")
        assert tab.locator(".labkit-drawn").inner_text() == " ".join("n" * 20)
        tab.get_by_label("After the text").select_option(label="a </script> b")
        assert tab.locator(".labkit-drawn").inner_text() == ""


# ---------------------------------------------------------------------- for every reader


@needs_browser
def test_nothing_is_wider_than_a_phone(opened):
    for name in (CHAPTER, PREDICTIONS, LEDGER, "book/index.html"):
        with opened(name, viewport=headless.PHONE, fragment="#inside-depth") as tab:
            assert tab.evaluate("document.documentElement.scrollWidth") <= headless.PHONE["width"]


@needs_browser
@pytest.mark.parametrize("name", [CHAPTER, PREDICTIONS, LEDGER, "book/index.html"])
def test_no_reader_meets_a_barrier(opened, name):
    if missing := vendor.fetch(vendor.AXE):
        pytest.skip(missing)
    axe = (vendor.AXE.folder / vendor.AXE.script).read_text("utf-8")
    with opened(name, fragment="#inside-depth") as tab:
        if name == CHAPTER:
            tab.fill("#guess-ch91-asked", "3")
            tab.keyboard.press("Enter")
            tab.fill("#guess-ch91-zero", "none")
            tab.keyboard.press("Enter")
        assert headless.barriers_in_every_look(tab, axe) == {}


def test_no_script_of_the_pages_loads_or_stores_elsewhere():
    for script in (reading_book.ROOT / "book" / "_static").glob("*.js"):
        code = script.read_text("utf-8")
        assert not re.search(r"fetch\(|XMLHttpRequest|sendBeacon|WebSocket|https?://|document\.cookie", code)
        assert "innerHTML" not in code, "text that a reader or a record wrote is never HTML"
