"""A page as plain text."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from minigpt.corpus.html_text import html_to_text

PAGE = """<!DOCTYPE html>
<html><head><title>Tea &amp; cake</title><style>p { color: red }</style>
<script>if (a < b) { document.write("<p>never</p>") }</script></head>
<body><h1>Tea</h1>
<p>Boil   the
water, then <em>wait</em>&nbsp;three minutes.<br>Pour.</p>
<ul><li>black</li><li>green</li></ul>
<table><tr><td>hot</td><td>cold</td></tr></table>
<pre>def pour():
    return  "tea"
</pre>
<noscript>no script</noscript><!-- a comment -->
</body></html>"""

TEXT = """Tea & cake

Tea

Boil the water, then wait three minutes.
Pour.

black

green

hot cold

def pour():
    return  "tea"
"""


def test_a_page_reads_as_a_browser_shows_it():
    """Blocks become paragraphs, spaces fold except in `pre`; scripts, styles and comments do not show."""
    assert html_to_text([PAGE]) == TEXT


@given(st.lists(st.integers(0, len(PAGE)), max_size=5))
def test_where_the_blocks_of_a_page_are_cut_changes_nothing(cuts):
    """A long page arrives in pieces; a tag or a run of spaces may be cut in two."""
    at = [0, *sorted(cuts), len(PAGE)]
    blocks = [PAGE[start:stop] for start, stop in pairwise(at)]
    assert html_to_text(blocks) == TEXT


def test_a_page_that_shows_nothing_is_empty():
    """So that cleaning can drop it."""
    assert html_to_text(["<script>let x</script><p> </p>"]) == ""


def test_what_follows_the_last_tag_is_text():
    """The parser holds it back until it knows that no tag or entity comes; spaces fold across tags."""
    assert html_to_text(["<i>letters </i> <b>from</b> AT", "&T"]) == "letters from AT&T\n"


def test_a_tag_closed_twice_hides_nothing_after_it():
    """The web is full of pages whose tags do not match."""
    assert html_to_text(["<p>a</style></script>b</pre> <p>c  d"]) == "ab\n\nc d\n"
