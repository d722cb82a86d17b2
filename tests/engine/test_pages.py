"""The accounts of the cache: no page is lost, none is given twice, and what is remembered can be found."""

import pytest
from hypothesis import given, strategies

from minigpt.engine.pages import OutOfPages, Pages


def filled(pages: Pages, tokens: list[int]) -> list[int]:
    """Take and remember pages for `tokens`, as a sequence that has computed them does."""
    node, held = pages.root, []
    for start in range(0, len(tokens), pages.size):
        node = pages.remember(node, tokens[start : start + pages.size], pages.take())
        held.append(node.page)
    return held


def found(pages: Pages, tokens: list[int]) -> int:
    return sum(count for _, count in pages.find(tokens))


def test_every_page_is_taken_once():
    pages = Pages(5, 4)
    assert sorted(pages.take() for _ in range(5)) == [0, 1, 2, 3, 4]
    with pytest.raises(OutOfPages):
        pages.take()


def test_a_page_is_free_when_its_last_holder_has_gone():
    pages = Pages(1, 4)
    page = pages.take()
    pages.share(page)
    pages.release([page])
    with pytest.raises(OutOfPages):
        pages.take()
    pages.release([page])
    assert pages.take() == page


def test_what_is_remembered_is_found_to_the_token():
    """Also where a prompt leaves a remembered text in the middle of a page."""
    pages = Pages(8, 4)
    pages.release(reversed(filled(pages, [1, 2, 3, 4, 5, 6, 7, 8, 9])))
    assert [found(pages, list(range(1, n))) for n in range(1, 12)] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    assert found(pages, [1, 2, 3, 4, 5, 6, 0]) == 6
    assert found(pages, [2, 3, 4]) == 0


def test_the_longest_agreement_wins():
    pages = Pages(8, 4)
    filled(pages, [1, 2, 0, 0])
    filled(pages, [1, 2, 3, 0])
    [(node, count)] = pages.find([1, 2, 3, 4])
    assert (node.tokens, count) == ((1, 2, 3, 0), 3)


def test_among_very_many_that_begin_alike_the_right_one_is_found():
    """Every prompt begins with the token between documents: a whole page is looked up, only a part is compared."""
    pages = Pages(3000, 4)
    for n in range(3000):
        pages.release(filled(pages, [0, n, n, n]))
    assert [found(pages, [0, n, n, n, 5]) for n in (0, 1500, 2999)] == [4, 4, 4]
    assert found(pages, [0, 2999, 2999, 7]) == 3 and found(pages, [0, 5, 5, 7]) == 1


def test_the_same_content_is_kept_once():
    """Two sequences that computed the same text hold the same pages afterwards; the second set is free again."""
    pages = Pages(4, 2)
    first, second = filled(pages, [1, 2, 3, 4]), filled(pages, [1, 2, 3, 4])
    assert first == second and len(pages.free) == 2 and [pages.holders[page] for page in first] == [2, 2]


def test_the_end_of_a_text_is_forgotten_before_its_beginning():
    """A beginning may serve other prompts; an end without its beginning serves nobody."""
    pages = Pages(3, 2)
    pages.release(reversed(filled(pages, [1, 2, 3, 4, 5, 6])))
    pages.take()
    assert found(pages, [1, 2, 3, 4, 5, 6]) == 4
    pages.take()
    assert found(pages, [1, 2, 3, 4, 5, 6]) == 2


def test_the_text_unused_longest_is_forgotten_first():
    pages = Pages(2, 2)
    old, new = filled(pages, [1, 2]), filled(pages, [3, 4])
    pages.release(old)
    pages.release(new)
    pages.share(old[0])
    pages.release(old)
    pages.take()
    assert (found(pages, [1, 2]), found(pages, [3, 4])) == (2, 0)


@given(strategies.lists(strategies.tuples(strategies.lists(strategies.integers(0, 2), min_size=1, max_size=9),
                                          strategies.booleans()), max_size=40))  # fmt: skip
def test_no_page_is_lost_or_given_twice(events):
    """After any history: every page is free, idle or held, the tree reaches all it knows, and holders add up."""
    pages, holding = Pages(7, 2), []
    for tokens, lets_go in events:
        if lets_go and holding:
            pages.release(reversed(holding.pop(0)))
        path = [node for node, count in pages.find(tokens) if count == 2]
        held = [node.page for node in path]
        for page in held:
            pages.share(page)
        node = path[-1] if path else pages.root
        try:
            for start in range(2 * len(path), len(tokens), 2):
                node = pages.remember(node, tokens[start : start + 2], pages.take())
                held.append(node.page)
        except OutOfPages:
            pages.release(reversed(held))
            continue
        holding.append(held)
    assert pages.holders == [sum(held.count(page) for held in holding) for page in range(7)]
    assert sorted(pages.free) == [p for p in range(7) if not pages.holders[p] and p not in pages.known]
    assert sorted(pages.idle) == [p for p in range(7) if not pages.holders[p] and p in pages.known]
    reached, below = [], [pages.root]
    while below:
        children = [child for several in below.pop().children.values() for child in several]
        reached += [child.page for child in children]
        below += children
    assert sorted(reached) == sorted(pages.known)
