"""What a browser would show of a page, as plain text."""

import re
from collections.abc import Iterable
from html.parser import HTMLParser

HIDDEN = {"script", "style", "template", "noscript"}
BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "dd", "div", "dl", "dt", "fieldset", "figcaption",
    "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr", "li", "main",
    "nav", "ol", "p", "pre", "section", "table", "title", "tr", "ul",
}  # fmt: skip
SEPARATORS = {"br": "\n", "td": " ", "th": " "}


class TextExtractor(HTMLParser):
    """Collects the visible text: blocks end paragraphs, runs of space become one, `pre` stays as it is."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden = 0  # how many open tags hide what they hold
        self.verbatim = 0

    def updatepos(self, i: int, j: int) -> int:
        """Lines are counted for messages that nobody reads here: a tenth of the time."""
        return j

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in HIDDEN
        self.verbatim += tag == "pre"
        self.parts.append("\n\n" if tag in BLOCKS else SEPARATORS.get(tag, ""))

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in HIDDEN and self.hidden > 0
        self.verbatim -= tag == "pre" and self.verbatim > 0
        self.parts.append("\n\n" if tag in BLOCKS else "")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            # spaces of a `pre` hide as NULs (which no text has) while all other runs of space shrink
            self.parts.append(data.replace(" ", "\0") if self.verbatim else re.sub(r"\s+", " ", data))


def html_to_text(blocks: Iterable[str]) -> str:
    """The visible text of a page that arrives in blocks."""
    parser = TextExtractor()
    for block in blocks:
        parser.feed(block)
    parser.close()
    text = re.sub(r" +", " ", "".join(parser.parts))
    text = re.sub(r" ?\n ?", "\n", text)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return text.replace("\0", " ") + "\n" if text else ""
