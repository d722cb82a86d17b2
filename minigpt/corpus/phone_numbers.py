"""Phone numbers, as people write them in the countries whose pages fill the web.

    +49 30 901820   0049 30 901820   (030) 90 18 20   (415) 555-2671   415-555-2671   06 12 34 56 78   tel. 5552671

A number with its country is taken for what it says. One without is taken where its groups follow a country's plan, or
where the words before it say that it is a phone. Dates, prices, ISBNs and versions have groups of their own.
"""

import re
from collections.abc import Iterator

import regex

Span = tuple[int, int]

GAPS = r" ().\-/"
WIDE_GAPS = GAPS + r"\u00a0\u202f\u2010-\u2013"
GAP = r"[ .\-\u00a0\u202f\u2010-\u2013]"
# Quick: six digits and more with at most three signs between two of them
ROWS = {ascii_only: regex.compile(rf"[0-9](?:[{gaps}]{{0,3}}[0-9]){{5,}}") for ascii_only, gaps in
        ((True, GAPS), (False, WIDE_GAPS))}  # fmt: skip
COUNTRY = re.compile(  # +49 (0)30 901 820-10, 0049...; the number of digits is counted afterwards
    rf"(?:\+|00 ?|\(\+(?=\d{{1,3}}\)))"
    rf"(?P<number>[1-9]\d{{0,2}}\)?(?:(?:{GAP}|/| ?\((?:0|\d{{1,5}})\) ?| [-/] )?\d){{6,14}})(?!\d)"
)
PLANS = re.compile(
    r"(?<![\w.,/+=%-])(?<!\d[ :])(?:"
    + "|".join((
        rf"(?:1{GAP})?\([2-9]\d\d\) ?[2-9]\d\d{GAP}\d{{4}}",              # North America: (415) 555-2671
        r"(?:1[-. ])?[2-9]\d\d(?P<us>[-. ])[2-9]\d\d(?P=us)\d{4}",         # ... 1-415-555-2671
        rf"0[1-9](?P<fr>{GAP})\d\d(?:(?P=fr)\d\d){{3}}",                    # France: 06 12 34 56 78
        rf"\(0\d{{1,5}}\) ?\d{{2,4}}(?:{GAP}?\d{{2,4}}){{1,3}}",              # Germany, Britain: (030) 901820
        r"0\d{2,5} ?/ ?\d{2,4}(?:[ -]?\d{2,4}){1,3}(?: ?- ?\d{1,4})?",       # Germany: 0171 / 1234567
        r"0\d{1,4}-\d{5,9}(?:-\d{1,4})?",                                   # ... 0171-1234567
        r"0[1-9]\d{1,3} \d{3,9}(?:-\d{1,4}|(?: \d{2,5}){1,3})?",            # ... 0711 123456-78; Britain: 020 7946 0958
        r"0\d \d{4} \d{4}|0\d \d{4,8}",                                    # Australia: 02 9283 5364; Italy
        r"0\d{1,4}-\d{1,4}[- ]\d{2,4}(?: \d{2,3})?",                        # Japan: 03-1234-5678; Sweden: 070-383 44 48
        r"1[3-9]\d(?P<cn>[ -])\d{4}(?P=cn)\d{4}",                           # China: 138 0013 8000
        r"\([1-9]\d\) ?9?\d{4}-\d{4}",                                     # Brazil: (11) 98765-4321
        r"[6-9]\d{4}[ -]\d{5}",                                             # India: 98765 43210
        r"[67]\d\d \d\d \d\d \d\d|[3679]\d\d \d{3} \d{3,4}",              # Spain: 612 34 56 78; Italy: 333 123 4567
        r"8[ -]?\(\d{3}\)[ -]?\d{3}-\d\d-\d\d|8[ -]\d{3}[ -]\d{3}-\d\d-\d\d",  # Russia: 8 (495) 123-45-67
    ))
    + r")(?![\w/-]|[.,:]\d| \d)"
)  # fmt: skip
NAMED = regex.compile(  # (?r): from the end of what stands before, so that most texts fail at their last character
    r"(?r)(?:(?<!<)\b(?:tel|tél|telefon|telefoon|téléphone|telephone|teléfono|telefono|telefone|phone|phones|mobile|mobil|mob|móvil|"
    r"cell|cellphone|celular|cellulare|handy|portable|gsm|fax|call|ring|text|dial|whatsapp|sms|hotline|helpline|ph)"
    r"\b|电话|電話|手机|手機|携帯|телефон|тел|هاتف|فون|फ़ोन|फोन|मोबाइल)"
    r"(?:[^\S\n]*(?:no|nr|number|numéro|nummer|num|#|us at|me at|us on|me on|at|on|is|unter|au|:|：|=|\.|\()"
    r"[^\S\n]*){0,4}"
    r"[^\w\n]{0,3}\Z",
    regex.IGNORECASE,
)
NAMED_NUMBER = re.compile(r"\(?\d(?:[ .\-/()\u00a0]{0,2}\d){5,13}(?!\d)")
OTHER = regex.compile(  # what a row of digits is, if these words come before it
    r"(?r)(?:isbn(?:-1[03])?|issn|ean|upc|asin|doi|sku|order|orders|invoice|ticket|case|ref|reference|tracking|serial|part|"
    r"model|item|id|no\.?|nr\.?|number|account|version|build|commit|rfc|patent|zip|plz|ssn|vat|tax|bestellnummer|"
    r"rechnung|kundennummer|commande|pedido|订单|订单号|coordinates|lat|lon|latitude|longitude)[^\w\n]{0,4}\Z",
    regex.IGNORECASE,
)
DATE = re.compile(
    r"(?:\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{4}|(?:19|20)\d\d ?[-–/] ?(?:19|20)\d\d)(?!\d)"
)


def find_phones(text: str) -> Iterator[Span]:
    """Where a number is written that follows a plan, or that is called a phone."""
    for row in ROWS[text.isascii()].finditer(text):
        start, end = row.span()
        opening = OPENING.search(text[max(0, start - 3) : start])
        yield from phones_in(text, start - (len(opening[0]) if opening else 0), end)


def phones_in(text: str, start: int, end: int) -> Iterator[Span]:
    """Phones within a row of digits; a country or a name for it is looked for at its beginning only."""
    if text.startswith("(+", start) and not BRACKETED.match(text, start):
        start += 1  # the bracket is about the whole number: (+49 30 901820)
    before = text[max(0, start - 32) : start]
    if text[start] in "+0(" and (country := COUNTRY.match(text, start)) and is_number_of_country(country, before):
        yield country.span()
        return
    if DATE.match(text, start):
        return
    if MAY_BE_NAMED.search(before) and NAMED.search(before) and (number := NAMED_NUMBER.match(text, start)):
        yield number.span()
        return
    if end - start < 9:
        return
    found = PLANS.finditer(text, start, min(len(text), end + 3))
    spans = [match.span() for match in found if digits(match[0]) >= 9 and not IN_FOURS.fullmatch(match[0])]
    if spans and not OTHER.search(before):
        yield from spans


BRACKETED = re.compile(r"\(\+\d{1,3}\)")
MAY_BE_NAMED = re.compile(r"[^\W\d_][^\w\n]{0,4}\Z|[#=:：.(]\W{0,3}\Z")
def is_number_of_country(match: re.Match[str], before: str) -> bool:
    """8 to 15 digits (ITU-T E.164), and no sum or path before them."""
    fits = 8 <= digits(match["number"]) <= 15 and not IN_FOURS.match(match[0])
    return fits and NO_COUNTRY.search(before) is None


IN_FOURS = re.compile(r"\d{4}(?: \d{4})+")  # rows of code points, years and the like: "0399 0308 0342"
OPENING = re.compile(r"(?:\(?\+\(?|\()\Z")  # belongs to the number behind it
NO_COUNTRY = re.compile(r"[\w+\\.,/-]\Z|\d \Z")


def digits(text: str) -> int:
    return sum(map(str.isdigit, text))
