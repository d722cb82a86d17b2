"""Rules of quality: each drops the junk that it was written for, and all keep what is worth reading."""

import base64
import json
import random

import numpy as np
import pytest
from corpus.samples import GOOD
from hypothesis import given
from hypothesis import strategies as st

from minigpt.corpus.chunks import batches, recut
from minigpt.corpus.document import Document
from minigpt.corpus.quality import COUNTS, Quality, Thresholds, measure_quality
from minigpt.corpus.report import RULES
from minigpt.corpus.words import Batch


def rules_of(*texts: str, size: int = 1 << 17) -> list[str]:
    quality = Quality(Thresholds())
    chunks = recut(Document(text, f"document {n}") for n, text in enumerate(texts))
    return [rule for some in batches(chunks, size) for rule in quality.read(Batch(some))]


def random_bytes(seed: int, count: int) -> bytes:
    return random.Random(seed).randbytes(count)


def hex_dump(data: bytes) -> str:
    rows = (data[i : i + 16] for i in range(0, len(data), 16))
    return "".join(f"{16 * n:08x}: {row[:8].hex(' ', 2)} {row[8:].hex(' ', 2)}\n" for n, row in enumerate(rows))


MENU = ("Home", "About us", "Products", "Pricing", "Blog", "Careers", "Press", "Contact", "Log in", "Sign up",
        "English", "Deutsch", "Terms of service", "Privacy policy", "Cookie settings", "Help center")  # fmt: skip
LOREM = ("Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et "
         "dolore magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris.\n")  # fmt: skip
MINIFIED = "!function(e,t){'object'==typeof e?module.exports=t(e):e.$=t}(this,function(n){var r=[],i=r.slice;"
JUNK = [
    ("garbled", "Caf\ufffd cr\ufffdme, d\ufffdj\ufffd vu \ufffd la carte: tout est perdu, ou presque, dans ce "
                "texte.\n"),
    ("mojibake", "La dÃ©mocratie nâ€™est pas nÃ©e dâ€™hier, disait-il Ã\xa0 lâ€™Ã©cole; câ€™est lâ€™affaire de "
                 "tous.\n"),
    ("mojibake", "Ð’ÑÐµ ÑÑ‡Ð°ÑÑ‚Ð»Ð¸Ð²Ñ‹Ðµ ÑÐµÐ¼ÑŒÐ¸ Ð¿Ð¾Ñ…Ð¾Ð¶Ð¸ Ð´Ñ€ÑƒÐ³ Ð½Ð° Ð´Ñ€ÑƒÐ³Ð°, ÐºÐ°Ð¶Ð´Ð°Ñ "
                 "Ð½ÐµÑÑ‡Ð°ÑÑ‚Ð»Ð¸Ð²Ð°Ñ.\n"),
    ("dump", base64.encodebytes(random_bytes(1, 2000)).decode()),
    ("dump", "Here is the key that you asked for:\n" + random_bytes(2, 700).hex() + "\n"),
    ("digits", hex_dump(random_bytes(3, 900))),
    ("minified", MINIFIED * 30),
    ("minified", json.dumps([{"id": n, "tags": ["a", "b"], "ok": True, "at": None} for n in range(90)])),
    ("symbols", "+----+----+\n|    |    |\n+====+====+\n" * 9 + "a b c d e f g h i j k l\n"),
    ("symbols", "@@@###%%%*** (((;;;))) ~~~ ^^^ /// --- ... ??? !!! &&& $$$ @@@ ### one two three four five six\n"),
    ("digits", "".join(f"{n * 37 % 1000:6d} {n * n:8d} {n / 7:.5f}\n" for n in range(40))),
    ("lorem-ipsum", LOREM * 2),
    ("repeated-lines", "2024 The server is up and well again\nAnother line that stands here alone for once\n" * 30),
    ("repeated-words", "buy now cheap pills online best price " * 40),
    ("repeated-words", "ha " * 200),
    ("menu", "\n".join(MENU) + "\n"),
    ("menu", "首页\n关于我们\n产品\n新闻\n联系我们\n登录\n注册\n帮助\n下载\n招聘\n地图\n论坛\n"),
    ("too-short", "Page not found\n"),
    ("too-short", "未找到页面\n"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "text"), JUNK)
def test_each_rule_drops_the_junk_it_was_written_for(rule, text):
    """A rule without an example of its junk would be a superstition."""
    assert rules_of(text) == [rule]


def test_every_rule_has_an_example_and_a_meaning():
    """What a report prints must be explained, and what is explained must happen."""
    own = [*RULES][[*RULES].index("garbled") : [*RULES].index("duplicate")]
    assert {rule for rule, _ in JUNK} == set(own)


@pytest.mark.parametrize("name", GOOD)
def test_text_worth_reading_stays(name):
    """A rule that drops poems, tables, code or a whole script would cost more than the junk."""
    assert rules_of(GOOD[name]) == [""]


def test_documents_do_not_judge_their_neighbours():
    """Documents share numpy passes; their verdicts are those of each alone, in every order and batch."""
    texts = [text for _, text in JUNK] + [*GOOD.values()]
    random.Random(0).shuffle(texts)
    alone = [rules_of(text)[0] for text in texts]
    for size in (1, 500, 1 << 20):
        assert rules_of(*texts, size=size) == alone


PIECES = st.text(alphabet="ab1 \n.é漢क\u200d\ufffd#", max_size=12)


@given(st.lists(PIECES, min_size=1, max_size=6), st.integers(5, 40), st.integers(1, 30))
def test_where_a_stream_is_cut_changes_no_statistic(texts, chunk, size):
    """Pieces are how a file happens to be read: chunks, and so all sums, are decided by the text alone."""

    def sums(pieces: list[Document]) -> list[int]:
        total = np.zeros(len(COUNTS), np.int64)
        for some in batches(recut(pieces, chunk), size):
            total += measure_quality(Batch(some)).sum(axis=0)
        return total.tolist()

    pieces = [Document(text, "x", ends=n == len(texts) - 1) for n, text in enumerate(texts)]
    assert sums(pieces) == sums([Document("".join(texts), "x")])


@given(st.lists(PIECES, min_size=1, max_size=4), st.integers(5, 40), st.integers(1, 60))
def test_a_document_over_several_batches_is_judged_once(texts, chunk, size):
    """The sums of an open document go on in the next batch, and end with it."""
    documents = [Document(text, str(n)) for n, text in enumerate(texts)]
    quality, many = Quality(Thresholds()), Quality(Thresholds())
    small = [rule for some in batches(recut(documents, chunk), size) for rule in quality.read(Batch(some))]
    (one,) = ([*recut(documents, chunk)],)
    assert small == many.read(Batch(one))


def test_sums_are_those_of_a_slow_count():
    """The packed counters against Python's own methods."""
    for text in GOOD.values():
        sums = dict(zip(COUNTS, measure_quality(Batch([Document(text, "x")]))[0].tolist(), strict=True))
        lines = [line for line in text.split("\n")]
        assert sums["characters"] == sum(map(len, lines))
        assert sums["ink"] == sum(not c.isspace() for c in text)
        assert sums["digits"] == sum(c.isnumeric() for c in text if not "\u4e00" <= c <= "\u9fff")
        assert sums["minified"] == sums["lost"] == sums["mojibake"] == 0
