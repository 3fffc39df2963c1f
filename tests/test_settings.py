"""The script that runs chapters in other settings finds a cell that differs, and a setting without effect."""

import sys
from pathlib import Path

import nbformat
import settings
from nbformat.v4 import new_code_cell, new_notebook, new_output


def test_a_cell_that_depends_on_the_setting_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "OUT", tmp_path)
    code = ["from labkit import env\nenv.set_threads()\nprint('the same')",
            "import os\nprint(os.environ.get('ATEN_CPU_CAPABILITY'))"]
    stored = ["the same\n", "None\n"]
    cells = [new_code_cell(source, execution_count=n, outputs=[new_output("stream", text=text)])
             for n, (source, text) in enumerate(zip(code, stored, strict=True), 1)]
    chapter = tmp_path / "00_tiny.ipynb"
    nbformat.write(new_notebook(cells=cells), chapter)
    worse, found, _ = settings.run(chapter, "scalar", Path(sys.executable))
    assert list(worse) == [f"{cells[1].id}: import os"]
    assert found["threads"] == 1


def test_a_setting_that_changes_nothing_is_called_idle():
    plain = {"threads": 1, "torch's functions": "a", "torch's product": "b", "numpy's product": "c",
             "oneDNN's GELU": "d"}
    assert settings.idle("plain", plain, plain) == settings.idle("1 thread", plain, plain) == ""
    assert settings.idle("scalar", plain, plain) == "no effect on torch's functions"
    assert settings.idle("scalar", {**plain, "torch's functions": "e"}, plain) == ""
    assert settings.idle("2 threads", plain, plain) == "torch ran with 1 threads"
    assert settings.idle("2 threads", {**plain, "threads": 2}, plain) == ""
    assert settings.idle("blas", {}, plain) == "the probe did not run"
