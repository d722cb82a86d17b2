"""Lines that many documents share are taken out; others stay."""

import random

import numpy as np
from corpus.samples import GOOD

from minigpt.corpus.boilerplate import FEW_DOCUMENTS, LineCounts, find_lines, remove_boilerplate
from minigpt.corpus.chunks import recut
from minigpt.corpus.document import Document
from minigpt.corpus.report import CleanReport

BANNER = "We use cookies to make this site better. Accept all cookies?"
FOOTER = "© 2024 Acme Inc. All rights reserved."
NAV = "Home | Products | Contact | Log in"


def article(number: int) -> str:
    rng = random.Random(number)
    words = rng.choices(["sea", "wind", "old", "house", "door", "light", "winter", "table", "bread", "river"], k=60)
    return "".join(" ".join(words[i : i + 12]) + f" and {number}.\n" for i in range(0, 60, 12))


def site(count: int) -> list[Document]:
    return [Document(f"{BANNER}\n{NAV}\n\n{article(n)}\n{FOOTER}\n", f"{n}.html") for n in range(count)]


def through(documents: list[Document], report: CleanReport) -> list[Document]:
    return list(remove_boilerplate(recut(documents), LineCounts.of(find_lines(recut(documents))), report))


def test_lines_of_every_page_of_a_site_are_removed():
    """A model would learn the banner by heart, a thousand times over, instead of the articles."""
    report = CleanReport()
    assert [one.text for one in through(site(40), report)] == [f"\n{article(n)}\n" for n in range(40)]
    assert report.changed["boilerplate"].documents == 40
    assert report.changed["boilerplate"].bytes == 40 * len(f"{BANNER}\n{NAV}\n{FOOTER}\n".encode())
    assert report.changed["boilerplate"].examples[0] == ("0.html", BANNER + "...")


def test_lines_of_few_documents_stay():
    """A line in two versions of one text is no boilerplate, nor is one that a single document repeats."""
    few = site(FEW_DOCUMENTS - 1)
    assert through(few, CleanReport()) == few
    song = Document("Will ye go, lassie, will ye go?\n" * 50, "song.txt")
    chorus = [song, *(Document(article(n), "x") for n in range(9))]
    assert through(chorus, CleanReport()) == chorus


def test_a_line_must_stand_in_a_share_of_the_documents():
    """In a large corpus ten documents are chance."""
    documents = [*site(15), *(Document(article(n), f"{n}.txt") for n in range(100, 1700))]
    assert through(documents, CleanReport()) == documents


def test_code_keeps_its_idioms():
    """"def __init__(self):" stands in half of all Python files, and belongs there."""
    code = [
        Document(
            f"import numpy as np\nfrom os import path\n\n\nclass A{n}:\n    def __init__(self, x):\n"
            f"        self.x = x + {n}\n        self.y = [x, (x, {{}})]\n\n\nif __name__ == '__main__':\n    A{n}(1)\n",
            f"{n}.py",
        )
        for n in range(30)
    ]
    assert through(code, CleanReport()) == code


def test_a_document_in_many_chunks_counts_a_line_once():
    """Otherwise one long book could make its own refrain boilerplate."""
    line = "and the ship sailed on into the night\n"
    book = Document((line + article(1)) * 900, "book.txt")  # several batches
    counted = LineCounts.of(find_lines(recut([book], 400)))
    assert counted.documents == 1 and int(counted.counts.max()) == 1
    assert int(np.count_nonzero(counted.counts[0])) == 6


def test_good_text_of_every_kind_passes_unchanged():
    """Nothing is removed where nothing repeats."""
    documents = [Document(text, name) for name, text in GOOD.items()]
    assert through(documents, CleanReport()) == documents


def test_two_lines_of_a_document_that_share_a_counter_count_once():
    """Also if they come in one batch: how documents are put together must not show in the counts."""
    hashes, document = np.array([7, 7 | 1 << 50, 7], np.uint64), np.array([0, 0, 1])
    together = LineCounts.of([(hashes, document, 2)])
    one = document[:1]  # each batch numbers its documents from 0
    apart = LineCounts.of([(hashes[:1], one, 0), (hashes[1:2], one, 1), (hashes[2:], one, 1)])
    assert together.counts[0, 7] == apart.counts[0, 7] == 2
    assert (together.counts == apart.counts).all() and together.documents == apart.documents == 2
