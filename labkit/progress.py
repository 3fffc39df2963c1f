"""One progress line for long work: a bar in a terminal, a line that redraws itself in a notebook."""

import sys
import time
from typing import Any

from tqdm import tqdm


class Progress:
    """``with Progress("lab01 on 2 ranks") as bar: bar.update(3, 60, "loss 4.2")``.

    In a notebook the line ends as it began, so a stored output does not depend on the time it took.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.handle: Any = None
        self.bar: tqdm | None = None
        self.noted = 0.0

    def __enter__(self) -> "Progress":
        from labkit.claims import in_notebook

        if in_notebook():
            from IPython.display import display

            self.handle = display({"text/plain": self.label}, raw=True, display_id=True)
        else:
            self.bar = tqdm(desc=self.label, unit="step", leave=False, dynamic_ncols=True)
        return self

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show ``done`` of ``total`` and a short note."""
        if self.handle is not None:
            full = round(30 * done / total)
            line = f"{self.label}  {'█' * full}{'░' * (30 - full)} {done}/{total}  {note}"
            self.handle.update({"text/plain": line}, raw=True)
        elif self.bar is not None:
            self.bar.total, self.bar.n, self.bar.bar_format = total, done, None
            self.bar.set_postfix_str(note)

    def note(self, text: str) -> None:
        """Show a short note alone: nothing is counted. A file keeps every line: there twice a minute."""
        if self.handle is not None:
            self.handle.update({"text/plain": f"{self.label}  {text}"}, raw=True)
        elif self.bar is not None and (sys.stderr.isatty() or time.monotonic() - self.noted > 30):
            self.noted = time.monotonic()
            self.bar.bar_format = "{desc}{postfix}"
            self.bar.set_postfix_str(text)

    def __exit__(self, *_: object) -> None:
        if self.handle is not None:
            self.handle.update({"text/plain": self.label}, raw=True)
        elif self.bar is not None:
            self.bar.close()
