"""Made-up data with known answers: nearly equal documents, and personal data in forms that no unit test has.

Both are drawn by a seeded generator, so that a figure can be made again, and made anew with another seed.
"""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from minigpt.corpus.words import SHINGLE

# --- copies -------------------------------------------------------------------------------------------------------

SYLLABLES = [first + second for first in "bdfgklmnprstvz" for second in ("a", "e", "i", "o", "u", "ai", "or", "en")]


class Copy(NamedTuple):
    text: str
    like: float    # the exact Jaccard index of its shingles and those of its original; 0 if it is one
    original: int  # the number of its original, or its own


def vocabulary(rng: random.Random, words: int = 8000) -> list[str]:
    return ["".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 4))) for _ in range(words)]


def prose(rng: random.Random, words: list[str], length: int) -> list[str]:
    """Few words are frequent and most are rare, as Zipf found: the one at rank r is drawn about 1/r of the time."""
    return [words[int(len(words) ** rng.random()) - 1] for _ in range(length)]


def shingles(text: list[str]) -> set[tuple[str, ...]]:
    return {tuple(text[at : at + SHINGLE]) for at in range(max(1, len(text) - SHINGLE + 1))}


def revised(rng: random.Random, text: list[str], share: float, words: list[str]) -> list[str]:
    """What happens to texts on the web: another beginning or end, a paragraph left out or moved, words corrected."""
    many, text = int(share * len(text)), [*text]
    at = rng.randrange(len(text) - many + 1)
    way = rng.randrange(5)
    if way == 0:
        return prose(rng, words, many // 2) + text + prose(rng, words, many - many // 2)
    if way == 1:
        return text[:at] + text[at + many :]
    if way == 2:
        part, rest = text[at : at + many], text[:at] + text[at + many :]
        to = rng.randrange(len(rest) + 1)
        return rest[:to] + part + rest[to:]
    if way == 3:
        return text[:at] + prose(rng, words, many) + text[at + many :]
    for _ in range(max(1, many // SHINGLE)):
        text[rng.randrange(len(text))] = rng.choice(words)
    return text


def copies(documents: int, seed: int) -> list[Copy]:
    """Half of the documents are originals; one copy of each, of any likeness, comes somewhere behind it."""
    rng = random.Random(seed)
    words, made = vocabulary(rng), []
    for number in range(documents // 2):
        text = prose(rng, words, int(rng.lognormvariate(5.3, 0.9)) + 40)
        other = revised(rng, text, rng.choice([0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7]), words)
        first, second = shingles(text), shingles(other)
        like = len(first & second) / len(first | second)
        made.append((rng.random(), Copy(" ".join(text), 0.0, number)))
        made.append((1 + rng.random(), Copy(" ".join(other), like, number)))
    return [copy for _, copy in sorted(made, key=lambda pair: pair[0])]


# --- personal data ------------------------------------------------------------------------------------------------


class Planted(NamedTuple):
    line: str
    kind: str  # "" if there is nothing to find
    what: str


def filled(rng: random.Random, form: str) -> str:
    """# is any digit, % one of 2 ... 9, ? a small letter."""
    draw: dict[str, Callable[[], str]] = {
        "#": lambda: rng.choice("0123456789"), "%": lambda: rng.choice("23456789"),
        "?": lambda: rng.choice("abcdefghijklmnopqrstuvwxyz"),
    }  # fmt: skip
    return "".join(draw[sign]() if sign in draw else sign for sign in form)


MAILS = (
    "????.???????@hospital.nhs.uk", "?.?.?????@students.uu.nl", "????????##@protonmail.com", "?????@?????.gv.at",
    "?????-?????.??@ens.psl.eu", "???_???_##@yahoo.co.jp", "jobs+????#@???????.careers.example.com", "%%%%%@qq.com",
    "????@xn--????-??a.de", "???.?????@????.gov.au", "sales.????@?????????.com.mx", "?????%@??????.tech",
    "?????.von.??????@?????.bayern", "???????@?????.or.kr", "???@???.?????.edu.tr",
)  # fmt: skip
ACCOUNTS = ("FI" + "#" * 14, "DK" + "#" * 14, "IE" + "AIBK" + "#" * 14, "LU" + "#" * 16, "CZ" + "#" * 20,
            "GR" + "#" * 23, "HU" + "#" * 24, "RO" + "BTRL" + "#" * 16, "UA" + "#" * 25, "IL" + "#" * 19,
            "AE" + "#" * 19, "HR" + "#" * 17, "SK" + "#" * 20, "EE" + "#" * 16, "IS" + "#" * 22, "KZ" + "#" * 16)
ISSUERS = (("4%", 16), ("54", 16), ("52", 16), ("2301", 16), ("2650", 16), ("6445", 16), ("3566", 16), ("38", 14),
           ("373", 15), ("6212", 16), ("4%", 13))  # fmt: skip
PHONES = (
    "+32 2 %## ## ##", "+32 47# ## ## ##", "+351 21# ### ###", "+351 9#% ### ###", "+30 21# ### ####",
    "+353 1 %## ####", "+353 8# ### ####", "+36 1 %## ####", "+36 30 ### ####", "+40 72# ### ###", "+65 %### ####",
    "+60 12-### ####", "+62 812-####-####", "+63 917 ### ####", "+66 8# ### ####", "+84 9# ### ## ##",
    "+92 300 #######", "+98 912 ### ####", "+972 5#-###-####", "+57 3## ### ####", "+56 9 #### ####",
    "+51 9## ### ###", "+593 9# ### ####", "+212 6## ######", "+233 24 ### ####", "+354 %## ####", "+371 2### ####",
    "+385 91 ### ####", "(%##) %##-####", "%##-%##-####", "0049 (0)40 %## ## ##", "+44 161 %## ####",
    "+1.%##.%##.####", "tel:+1-%##-%##-####",
)  # fmt: skip
LINES = (
    "Reach me under {} until noon.", "contact = {}", "* {} (office)", "From: {}", '"value": "{}",', "<td>{}</td>",
    "Senden an: {}", "联系方式 {}", "ask for {}, please", "{} / see below", "\t{}", "Ihre Nachricht an {}: danke",
)  # fmt: skip
NOTHING = (
    "Python 3.##.## was released", "python==2.%.1#.%", "kernel 5.1#.0-##-generic", "release 1%.0.%.1#",
    "ISBN 978-0-%##-#####-%", "on 1#.0%.20## at 1#:3#", "20##-0%-1#T0%:1#:3#Z", "price: 1%,###.##",
    "commit ?#?%?#%?#?", "127.0.0.%", "10.%.#%.1%", "192.168.%.##", "@???????.setter", "?????@localhost",
    "pages %##-%##", "x = ?@?.T", "lines %###..%###", "0.%########", "%#.%####, -%#.#####", "order no. %########",
    "section 4.%.%.%", "https://???.??/@?????/%#####", "sha256:%?#%?#%?#%?#%?#", "item-%###-##",
    "uid=%###(???) gid=%###", "%## x %### px", "(%##, %##, %##)", "19%#-19%#", "%.%e-1#",
)  # fmt: skip


def account(rng: random.Random) -> str:
    """An IBAN whose check digits are right."""
    form = filled(rng, rng.choice(ACCOUNTS))
    country, rest = form[:2], form[2:]
    number = int("".join(str(int(sign, 36)) for sign in f"{rest}{country}00"))
    whole = f"{country}{98 - number % 97:02}{rest}"
    return rng.choice([whole, " ".join(whole[at : at + 4] for at in range(0, len(whole), 4))])


def payment_card(rng: random.Random) -> str:
    first, length = rng.choice(ISSUERS)
    body = filled(rng, first + "#" * (length - 1 - len(first)))
    doubled = sum(sum(divmod(2 * int(d), 10)) if at % 2 == 0 else int(d) for at, d in enumerate(reversed(body)))
    whole = body + str(-doubled % 10)
    cuts = {16: (4, 8, 12), 15: (4, 10), 14: (4, 10)}.get(length, ())
    parts = [whole[a:b] for a, b in zip((0, *cuts), (*cuts, length), strict=True)]
    return rng.choice([whole, rng.choice([" ", "-", "\u202f"]).join(parts)])


def address(rng: random.Random) -> str:
    if rng.random() < 0.3:
        groups = [rng.choice(["2001", "2400", "2603", "2a01", "2a02", "2c0f"]), f"{rng.randrange(0x200, 0x0D00):x}"]
        tail = [f"{rng.randrange(1, 65536):x}" for _ in range(6)]
        return ":".join([*groups, *rng.choice([tail, [*tail[:2], "", tail[2], tail[3]]])])
    while True:
        first = rng.choice([5, 13, 18, 37, 45, 52, 64, 74, 80, 88, 95, 103, 116, 138, 157, 176, 188, 195, 200, 217])
        rest = [rng.randint(0, 255) for _ in range(3)]
        if max(rest) > 30:  # those of versions are small, and taken for versions
            return ".".join(map(str, [first, *rest]))


MAKERS: dict[str, Callable[[random.Random], str]] = {
    "email": lambda rng: filled(rng, rng.choice(MAILS)), "iban": account, "card": payment_card, "ip": address,
    "phone": lambda rng: filled(rng, rng.choice(PHONES)),
}  # fmt: skip


def personal(lines: int, seed: int) -> Iterator[Planted]:
    """Half of the lines hold something to find, of all kinds alike; the others only something that looks like it."""
    rng = random.Random(seed)
    for _ in range(lines):
        kind = rng.choice(["", *MAKERS]) if rng.random() < 0.6 else ""
        what = MAKERS[kind](rng) if kind else filled(rng, rng.choice(NOTHING))
        yield Planted(rng.choice(LINES).format(what), kind, what)
