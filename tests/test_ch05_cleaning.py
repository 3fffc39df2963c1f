"""Section 5.1's cleaning cells on text, sets and stages that the author did not choose."""

import io
import itertools
from functools import cache

import numpy as np
import pytest
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st

CELLS = ["imports", "clean-sources", "clean-faults", "clean-plant", "clean-corpus", "clean-valid",
         "clean-decode", "clean-mojibake", "clean-html", "clean-html-use", "clean-characters",
         "dup-minhash", "dup-lsh", "dup-exact-def", "filter-language", "pipe-stages", "pipe-run",
         "read-lines"]
COMMON = settings(max_examples=40, deadline=None, derandomize=True)
chinese = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=1,
                  max_size=40)
# few different elements: many pairs of sets are alike, and so agree in some rows, not in all
sets_of = st.lists(st.sets(st.text("ab", min_size=1, max_size=3), min_size=1), min_size=2,
                   max_size=8)


@cache
def chapter() -> dict:
    return run(sources("05"), CELLS)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_valid_utf8_is_counted_as_python_decodes(n):
    c = chapter()
    strings = map(bytes, itertools.product(range(256), repeat=n))
    assert c["count_valid"](n) == sum(map(c["is_utf8"], strings))


@COMMON
@given(chinese | st.text(min_size=1, max_size=40))
def test_mojibake_is_undone(text):
    c = chapter()
    assert c["undo_mojibake"](c["misread"](text)) == text


@COMMON
@given(chinese)
def test_utf8_and_gb18030_are_told_apart(text):
    c = chapter()
    text += "的文字和内容都是常用的汉字，" * len(text)  # mostly common characters, as real text
    assert c["decode_bytes"](text.encode()) == text
    assert c["decode_bytes"](text.encode("gb18030")) == text


@COMMON
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40))
def test_a_page_gives_its_text_back(text):
    c = chapter()
    assert c["strip_html"](c["as_html"](text)) == text.strip()


@COMMON
@given(st.text(max_size=60))
def test_cleaning_twice_changes_nothing(text):
    c = chapter()
    try:
        once = c["clean_characters"](text)
    except c["Drop"]:
        return
    assert c["clean_characters"](once) == once


@COMMON
@given(sets_of, st.integers(1, 5))
def test_signatures_and_candidates_equal_datasketch(sets, seed):
    from datasketch import MinHash, MinHashLSH

    c = chapter()
    ours = c["signatures"](sets, 16, seed)
    theirs = MinHash.bulk([[e.encode() for e in s] for s in sets], num_perm=16, seed=seed)
    assert np.array_equal(ours, [m.hashvalues for m in theirs])
    index = MinHashLSH(num_perm=16, params=(4, 4))
    for i, m in enumerate(theirs):
        index.insert(i, m)
    pairs = {(i, j) for j, m in enumerate(theirs) for i in index.query(m) if i < j}
    assert c["candidates"](ours, 4, 4) == pairs


@COMMON
@given(sets_of)
def test_sparse_similarities_equal_those_of_sets(sets):
    found = {(i, j): s for i, j, s in zip(*chapter()["all_similar"](sets), strict=True)}
    exact = {(i, j): len(a & b) / len(a | b)
             for (i, a), (j, b) in itertools.combinations(enumerate(sets), 2) if a & b}
    assert found == exact  # one division of the same two integers: no rounding differs


@COMMON
@given(st.lists(st.text("abcd ", min_size=2, max_size=30), min_size=6, max_size=6),
       st.text("abcd ", min_size=2, max_size=12), st.sampled_from([0.01, 1.0]))
def test_languages_equal_scikit_learn(texts, new, smoothing):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB

    c = chapter()
    names = ["x", "y", "z"]
    model = c["train_languages"]({n: texts[2 * k:2 * k + 2] for k, n in enumerate(names)}, smoothing)
    vectorizer = CountVectorizer(analyzer=lambda text: list(itertools.pairwise(text)))
    counts = vectorizer.fit_transform(texts)
    bayes = MultinomialNB(alpha=smoothing, fit_prior=False)
    bayes.fit(counts, np.repeat(names, 2))
    logs = bayes.feature_log_prob_
    for k, name in enumerate(names):
        seen, unseen = model[name]
        for pair, column in vectorizer.vocabulary_.items():
            # logarithms below 100, a few roundings of 2⁻⁵³ each
            assert abs(seen.get(pair, unseen) - logs[k, column]) < 1e-12
    said, row = c["language"](new, model), vectorizer.transform([new])
    if row.nnz == 0:
        assert said == "unknown"
    else:
        scores = bayes.predict_joint_log_proba(row)[0]
        assert scores[names.index(said)] > scores.max() - 1e-9  # a tie may go either way


@COMMON
@given(st.lists(st.text("ab\n", max_size=6), max_size=12), st.lists(st.sampled_from("abc"), max_size=4))
def test_the_books_balance(texts, letters):
    c = chapter()

    def refuse(letter):
        def stage(text):
            if letter in text:
                raise c["Drop"](letter)
            return text[:-1]
        return c["each"](stage)

    raw = {f"{i}": text.encode() for i, text in enumerate(texts)}
    decode = c["each"](lambda document: document.decode())
    kept, why, log = c["run_pipeline"](raw, [decode, *map(refuse, letters)])
    assert not kept.keys() & why.keys() and kept.keys() | why.keys() == raw.keys()
    assert len(kept) + sum(row["dropped"] for row in log) == len(raw)
    left = sum(len(text.encode()) for text in kept.values())
    gone = sum(row["bytes dropped"] + row["bytes cut"] for row in log)
    assert left + gone == sum(map(len, raw.values()))


@COMMON
@given(st.binary(max_size=40) | st.text("a\n", max_size=40).map(str.encode), st.integers(1, 9))
def test_lines_over_the_limit_and_no_others_are_skipped(content, limit):
    lines = io.BytesIO(content).readlines()
    assert list(chapter()["bounded_lines"](io.BytesIO(content), limit)) == [
        line if len(line) <= limit else None for line in lines]
