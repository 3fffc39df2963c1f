"""Chapter 1's record of longer training: made by the code that stands there, and able to be made again."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def history():
    spec = importlib.util.spec_from_file_location("history", ROOT / "benchmarks" / "history.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_record_is_of_todays_code(history):
    assert history.stale() == ""


def test_a_changed_cell_makes_the_record_stale(history, tmp_path):
    cells = tmp_path / "01.ipynb"
    text = (ROOT / "chapters" / "01_overview.ipynb").read_text(encoding="utf-8")
    assert text.count("clip_grad_norm_(model.parameters(), 1.0)") == 1
    cells.write_text(text.replace("clip_grad_norm_(model.parameters(), 1.0)",
                                  "clip_grad_norm_(model.parameters(), 2.0)"), encoding="utf-8")
    assert "the cells" in history.stale(cells=cells)


def test_the_command_runs_in_its_smoke_setting(history, tmp_path):
    out = tmp_path / "smoke.json"
    history.main(["--smoke", "--seeds", "0", "--budgets", "live", "--processes", "1", "--out", str(out)])
    made = json.loads(out.read_text(encoding="utf-8"))
    assert set(made["budgets"]["live"]["runs"]) == {"feed-forward 0", "recurrent 0", "Transformer 0"}
    assert not made["complete"]


def test_rates_were_not_chosen_with_a_reported_seed():
    record = json.loads((ROOT / "benchmarks" / "history.json").read_text(encoding="utf-8"))
    assert record["choice_seed"] not in record["seeds"]
    for budget in record["budgets"].values():
        for model, rate in budget["rates"].items():
            tried = [run for name, run in budget["choice"].items() if name.startswith(model)]
            assert rate == min(tried, key=lambda run: run["bits"])["rate"]
