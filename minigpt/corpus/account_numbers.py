"""Bank accounts and payment cards: long numbers with check digits, so that few others are taken for them."""

import re
from collections.abc import Iterator

import regex  # finds what begins with a class of characters in a third of re's time

Span = tuple[int, int]

# How long an IBAN is in each country: SWIFT, "IBAN registry", release 98
IBAN_LENGTH = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28,
    "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20,
    "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25,
    "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27,
    "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}  # fmt: skip
GAP = r"[ \u00a0\u202f\-.]"
IBAN_BEGINS = regex.compile(rf"[A-Z]{{2}}{GAP}?[0-9]{{2}}{GAP}?[A-Z0-9]{{4}}")
CARD_BEGINS = regex.compile(rf"[0-9]{{4}}(?:[0-9]{{9}}|{GAP}[0-9]{{4}}{GAP}[0-9]{{4}}|{GAP}[0-9]{{6}}{GAP})")
NOT_BEFORE = re.compile(rf"[\w+]\Z|\d[.,]\Z|\d{GAP}\Z")
CARD = re.compile(
    rf"(?:\d{{4}}({GAP})\d{{4}}\1\d{{4}}\1\d{{4}}(?:\1\d{{1,3}})?|\d{{4}}({GAP})\d{{6}}\2\d{{4,5}}|\d{{13,19}})"
    rf"(?!\w|[.,]\d|{GAP}\d)"
)
OTHER = re.compile(  # what a long number is, if these words come before it
    r"(?:order|invoice|tracking|serial|isbn|ean|upc|imei|sku|ticket|case|ref|reference|patent|\bid|uid|uuid|hash|"
    r"timestamp|订单|订单号|bestellnummer)\W{0,4}\Z",
    re.IGNORECASE,
)
# first digits (ISO/IEC 7812) and how many digits follow in all: Visa, Mastercard, Amex, Diners, Discover, JCB, ...
ISSUERS = (
    (re.compile(r"4"), (13, 16, 19)),
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),
    (re.compile(r"3[47]"), (15,)),
    (re.compile(r"30[0-5]|3095|3[689]"), (14,)),
    (re.compile(r"6011|64[4-9]|65|62|81"), (16, 17, 18, 19)),
    (re.compile(r"35(2[89]|[3-8])"), (16, 17, 18, 19)),
    (re.compile(r"50|5[6-9]|6[37]|220[0-4]"), (16, 18, 19)),
)


def find_ibans(text: str) -> Iterator[Span]:
    """Country, two check digits, account: as long as the country says, in fours or as one."""
    for begin in IBAN_BEGINS.finditer(text):
        start = begin.start()
        length = IBAN_LENGTH.get(begin[0][:2])
        if length is None or text[start - 1 : start].isalnum():
            continue
        end = end_of(text, start, length)
        if end is not None and has_check_digits(text[start:end]):
            yield start, end


def end_of(text: str, start: int, length: int) -> int | None:
    """Where the `length` letters and digits from `start` on end, single gaps among them left out of the count."""
    at, count = start, 0
    while count < length:
        if at >= len(text):
            return None
        if text[at].isascii() and text[at].isalnum():
            count += 1
        elif not re.match(GAP, text[at]) or not text[at - 1].isalnum():
            return None
        at += 1
    return None if text[at : at + 1].isalnum() else at


def has_check_digits(account: str) -> bool:
    """ISO 13616: with country and check digits moved to the end and A = 10 ... Z = 35, the rest of 97 is 1.

    >>> has_check_digits("GB82 WEST 1234 5698 7654 32")
    True
    """
    plain = re.sub(r"[^A-Z0-9]", "", account.upper())
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def find_cards(text: str) -> Iterator[Span]:
    """13 to 19 digits in the usual groups, with an issuer's first digits and Luhn's last one."""
    end = 0
    for begin in CARD_BEGINS.finditer(text):
        start = begin.start()
        if start < end or NOT_BEFORE.search(text[max(0, start - 2) : start]):
            continue
        match = CARD.match(text, start)
        if match is None or not is_card(re.sub(r"\D", "", match[0])) or OTHER.search(text[max(0, start - 24) : start]):
            continue
        end = match.end()
        yield start, end


def is_card(number: str) -> bool:
    return luhn(number) and any(first.match(number) and len(number) in lengths for first, lengths in ISSUERS)


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1: with every second digit from the right doubled, the digits' sum ends in 0.

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    doubled = (2 * int(d) if place % 2 else int(d) for place, d in enumerate(reversed(digits)))
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0
