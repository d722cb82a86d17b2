"""What a page shows, by Python's own parser: the slow twin of html_text.py, equal to it where markup is sound."""

import re
from html.parser import HTMLParser

from minigpt.corpus.html_text import CLOSES, HIDDEN, OPENS


class TextExtractor(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden = self.verbatim = 0

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in HIDDEN
        self.verbatim += tag == "pre"
        self.parts.append(OPENS.get(tag, ""))

    def handle_endtag(self, tag):
        self.hidden -= tag in HIDDEN and self.hidden > 0
        self.verbatim -= tag == "pre" and self.verbatim > 0
        self.parts.append(CLOSES.get(tag, ""))

    def handle_data(self, data):
        if not self.hidden:
            self.parts.append(data.replace(" ", "\0") if self.verbatim else re.sub(r"\s+", " ", data))


def text_by_parser(page: str) -> str:
    parser = TextExtractor()
    parser.feed(page)
    parser.close()
    text = re.sub(r" +", " ", "".join(parser.parts))
    text = re.sub(r" ?\n ?", "\n", text)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return text.replace("\0", " ") + "\n" if text else ""
