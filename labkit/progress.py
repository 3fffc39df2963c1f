"""One progress line for long work: a bar in a terminal, a line that redraws itself in a notebook."""

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
            self.bar.total, self.bar.n = total, done
            self.bar.set_postfix_str(note)

    def __exit__(self, *_: object) -> None:
        if self.handle is not None:
            self.handle.update({"text/plain": self.label}, raw=True)
        elif self.bar is not None:
            self.bar.close()
