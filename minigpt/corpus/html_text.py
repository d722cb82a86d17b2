"""What a browser would show of a page, as plain text.

One regular expression finds tags and comments; what stands between them is text. Where markup is broken, the rules
are those of browsers (WHATWG, "HTML", section 13.2.5): a `<` before anything but a letter, `/`, `!` or `?` is text; a
`>` in a quoted value ends no tag; what begins a tag or a comment and never ends hides the rest. Three are not: a
`<script/>` is closed, as XHTML means it; a `<!--` inside of a script hides nothing from `</script>`; and a tag is a
tag in a `<title>`, too.
"""

import re
from collections.abc import Iterable, Iterator
from html import unescape

from minigpt.corpus.document import Document

HIDDEN = {"script", "style", "template", "noscript"}
SPACE = r" \t\n\r\f"  # in a tag; in text, what Python calls space
RAW = {  # what holds no tags, and where it ends
    tag: re.compile(rf"</{tag}(?=[{SPACE}/>])", re.IGNORECASE) for tag in ("script", "style")
}
BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "dd", "div", "dl", "dt", "fieldset", "figcaption",
    "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr", "li", "main",
    "nav", "ol", "p", "pre", "section", "table", "title", "tr", "ul",
}  # fmt: skip
OPENS = {**dict.fromkeys(BLOCKS, "\n\n"), "br": "\n", "td": " ", "th": " "}  # what a tag is in the text
CLOSES = dict.fromkeys(BLOCKS, "\n\n")

# `++` and `*+` take all they can and give nothing back: no page, however broken, is read twice from one place on
MARKUP = re.compile(
    r"<(?:"
    rf"(/?)([a-zA-Z][^{SPACE}/>]*+)"                                            # a tag: whether it closes, its name,
    rf"""((?:[^=>]++|=[{SPACE}]*+(?:"[^"]*+"?|'[^']*+'?|[^{SPACE}>]*+))*+)"""   # its attributes; quotes come after =
    r"(?:>|\Z)"
    r"|!--(?:-?>|.*?(?:--!?>|\Z))"                                              # a comment
    r"|(?:[!?]|/(?!\Z))[^>]*+(?:>|\Z)"                                          # what browsers take for a comment
    r")",
    re.DOTALL,
)
SPACES = re.compile(r"\s+")


def without_markup(pieces: Iterable[Document]) -> Iterator[Document]:
    """Pages as what they show; whatever else comes, as it is."""
    for piece in pieces:
        yield piece._replace(text=html_to_text(piece.text), markup=False) if piece.markup else piece


def html_to_text(page: str) -> str:
    """The visible text: blocks end paragraphs, runs of space become one, `pre` stays as it is."""
    parts = []
    at, hidden, verbatim = 0, 0, 0  # how many open tags hide what they hold, or keep its spaces
    while (found := MARKUP.search(page, at)) is not None:
        begin = found.start()
        if begin > at and not hidden:
            parts.append(shown(page[at:begin], verbatim))
        at = found.end()
        closes, tag, attributes = found.groups()
        if tag is None:
            continue
        tag = tag.lower()
        parts.append((CLOSES if closes else OPENS).get(tag, ""))
        if tag not in HIDDEN and tag != "pre":
            continue
        step = -1 if closes else 0 if attributes.endswith("/") else 1
        if tag == "pre":
            verbatim = max(0, verbatim + step)
        else:
            hidden = max(0, hidden + step)
        if step > 0 and tag in RAW:
            end = RAW[tag].search(page, at)
            at = end.start() if end else len(page)
    if at < len(page) and not hidden:
        parts.append(shown(page[at:], verbatim))
    text = re.sub(r" {2,}", " ", "".join(parts))
    text = re.sub(r" ?\n ?", "\n", text)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return text.replace("\0", " ") + "\n" if text else ""


def shown(text: str, verbatim: int) -> str:
    """Text between two tags. Spaces of a `pre` hide as NULs (no text has any) while all other runs of space shrink."""
    if "&" in text:
        text = unescape(text)
    return text.replace(" ", "\0") if verbatim else SPACES.sub(" ", text)
