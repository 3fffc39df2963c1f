"""Ask a tuned model of Lab 6.

    python labs/lab06_three_tasks/ask.py runs/lab06_three_tasks/…/model translate "Failed to start"
    python labs/lab06_three_tasks/ask.py FOLDER classify "房间很干净，服务也好"
    python labs/lab06_three_tasks/ask.py FOLDER answer "x : int, default=3" --question 'What is `x`?'

The answer goes to the screen; what was done to the text before (cut, no training for the task) to the
error stream. An answer is what the model holds likely, not what is true.
"""

import argparse
import sys
from pathlib import Path

LAB = Path(__file__).resolve().parent
sys.path.insert(0, str(LAB))  # the lab's other files, wherever it is started from

import mixing  # noqa: E402
import tasks  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase  # noqa: E402

from labkit.env import UserError  # noqa: E402


def checked(text: str, what: str) -> str:
    """The text. Raises UserError where nobody could answer it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{what} holds half a surrogate, U+{ord(text[error.start]):04X}, at character "
                        f"{error.start + 1}: that is no character, so the file or terminal it comes from is "
                        "not read as UTF-8") from None
    if not text.strip():
        raise UserError(f"{what} is empty: give something to work on")
    return text


def prompt(tokenizer: PreTrainedTokenizerBase, name: str, text: str,
           question: str = "") -> tuple[list[int], int]:
    """(tokens of the prompt, tokens of the text that did not fit), cut as rows of training are."""
    if name not in tasks.TASKS:
        raise UserError(f"no task is called {name!r}: choose from {', '.join(tasks.TASKS)}")
    item = (checked(text, "the text"), checked(question, "the question") if name == "answer" else "")
    source, ask = (tokenizer(part(item))["input_ids"]
                   for part in (tasks.TASKS[name].source, tasks.TASKS[name].asks))
    if signs := set(source + ask) & set(tokenizer.all_special_ids):
        raise UserError(f"the text holds {tokenizer.decode(min(signs))}, a sign that the model uses itself: "
                        "write it in another way")
    room = tasks.CONTEXT - tasks.TASKS[name].longest - len(ask)
    if room < 1:
        raise UserError(f"the question has {len(ask)} tokens: the model reads "
                        f"{tasks.CONTEXT - tasks.TASKS[name].longest} in all, so shorten it")
    return [*source[:room], *ask], max(0, len(source) - room)


def ask(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, name: str, text: str,
        question: str = "") -> str:
    """The model's answer, greedily. Raises UserError for a text that nobody could answer."""
    return tasks.answers(model, tokenizer, name, [prompt(tokenizer, name, text, question)[0]])[0]


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("ask.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=Path, help="a folder such as model of a run, or tuned")
    p.add_argument("task", help=", ".join(tasks.TASKS))
    p.add_argument("text", help="what to work on; - reads it from the standard input")
    p.add_argument("--question", default="", help="for answer: what is asked about the text")
    return p


def main(flags: list[str]) -> None:
    args = parser().parse_args(flags)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if args.question and args.task != "answer":
        raise UserError(f"--question belongs to answer, not to {args.task}")
    text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape") if args.text == "-" else args.text
    if args.task not in tasks.TASKS:
        raise UserError(f"no task is called {args.task!r}: choose from {', '.join(tasks.TASKS)}")
    checked(text, "the text")
    model, tokenizer = mixing.load(args.folder)
    tokens, cut = prompt(tokenizer, args.task, text, args.question)
    if cut:
        print(f"the text is too long by {cut:,} tokens: the model reads its beginning", file=sys.stderr)
    (answer,) = tasks.answers(model.eval(), tokenizer, args.task, [tokens])
    print(answer or "(the model has no answer: it ended at once)")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"ask.py: {error}")
    except KeyboardInterrupt:
        sys.exit("ask.py: stopped")
