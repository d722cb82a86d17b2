"""Text with personal data planted in it, and with much that only looks like it.

Formats were gathered from how people and national numbering plans write them, not from the patterns under test. All
data is made up by a seeded generator; what is planted is marked, so that recall and precision can be counted.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

DIGITS = "0123456789"


class Planted(NamedTuple):
    start: int
    end: int
    kind: str


def fill(rng: random.Random, form: str) -> str:
    """# is any digit, % one of 2 ... 9."""
    return "".join(rng.choice(DIGITS) if c == "#" else rng.choice(DIGITS[2:]) if c == "%" else c for c in form)


# --- what is planted ----------------------------------------------------------------------------------------------

FIRST = ["anna", "bob", "chen", "dmitri", "elif", "fatima", "george", "hana", "igor", "joão", "klára", "lars",
         "mehmet", "nora", "olga", "priya", "søren", "wei"]
LAST = ["smith", "o'neil", "müller", "tanaka", "garcía", "novák", "silva", "kowalski", "ivanov", "nguyen", "rossi",
        "dubois", "haddad", "sharma", "lee"]
HOSTS = ["example", "gmail", "mail.ru", "uni-heidelberg", "web", "cs.stanford", "my-shop", "outlook", "t-online",
         "company.co", "163", "ya", "sub.domain", "posteo", "bücher"]  # fmt: skip
ENDINGS = ["com", "org", "net", "de", "fr", "co.uk", "edu", "io", "com.br", "ac.jp", "info", "cn", "in", "ru",
           "museum", "app"]


def email(rng: random.Random) -> str:
    first, last = rng.choice(FIRST), rng.choice(LAST)
    plain = last.replace("'", "") if rng.random() < 0.7 else last
    local = rng.choice([
        f"{first}.{plain}", f"{first}_{plain}", f"{first}{rng.randint(1, 99)}", f"{first[0]}{plain}",
        f"{first}-{plain}",
        f"{first}+news", f"{first}.{plain}+tag{rng.randint(1, 9)}", f"{first.upper()}.{plain.upper()}", "info",
        "no-reply",
        f"{plain}{rng.randint(1950, 2010)}", f"x{rng.randint(10, 99)}",
    ])  # fmt: skip
    host, ending = rng.choice(HOSTS), rng.choice(ENDINGS)
    spelled = [f"{first} [at] {host} [dot] {ending}", f"{first}(at){host}.{ending}",
               f"{first} (at) {host} (dot) {ending}",
               f"{first}[at]{host}[dot]{ending}"]  # fmt: skip
    if rng.random() < 0.08 and first.isascii() and host.isascii():
        return rng.choice(spelled)
    return f"{local}@{host}.{ending}"


IBANS = {"DE": "##################", "GB": "NWBK##############", "FR": "##########ABC##########",
         "NL": "ABNA##########", "ES": "####################", "IT": "X######################",
         "CH": "#################", "AT": "################", "BE": "############", "PL": "########################",
         "SE": "####################", "NO": "###########", "PT": "#####################",
         "TR": "######0###############",
         "MT": "MALT#####ABCDEF############", "SA": "##ABCDEF############",
         "BR": "#######################P1"}  # fmt: skip


def iban(rng: random.Random) -> str:
    country = rng.choice([*IBANS])
    account = fill(rng, IBANS[country])
    number = int("".join(str(int(c, 36)) for c in f"{account}{country}00"))
    whole = f"{country}{98 - number % 97:02}{account}"
    fours = [whole[i : i + 4] for i in range(0, len(whole), 4)]
    return rng.choice([whole, " ".join(fours), " ".join(fours), "-".join(fours), "\u00a0".join(fours)])


CARDS = {"4": 16, "51": 16, "55": 16, "2221": 16, "2719": 16, "34": 15, "37": 15, "6011": 16, "65": 16, "3528": 16,
         "36": 14, "62": 16, "30569": 14}  # fmt: skip


def card(rng: random.Random) -> str:
    first = rng.choice([*CARDS, "4", "4", "53"])
    length = CARDS.get(first, 16)
    body = first + fill(rng, "#" * (length - 1 - len(first)))
    total = sum(sum(divmod(2 * int(d), 10)) if i % 2 == 0 else int(d) for i, d in enumerate(reversed(body)))
    whole = body + str(-total % 10)
    if length == 16:
        groups = [whole[i : i + 4] for i in range(0, 16, 4)]
    elif length == 15:
        groups = [whole[:4], whole[4:10], whole[10:]]
    else:
        groups = [whole[:4], whole[4:10], whole[10:]]
    return rng.choice([whole, " ".join(groups), " ".join(groups), "-".join(groups)])


def ip(rng: random.Random) -> str:
    if rng.random() < 0.3:
        groups = [f"{rng.randint(0x2001, 0x2C0F):x}", *(f"{rng.randrange(65536):x}" for _ in range(7))]
        if groups[0] in ("2002",):
            groups[0] = "2a00"
        groups[1] = rng.choice(["4860", "67c", "db9", "1450"])
        whole = ":".join(groups)
        short = f"{groups[0]}:{groups[1]}::{groups[2]}"
        return rng.choice([whole, short, f"{groups[0]}:{groups[1]}:{groups[2]}::1", whole.upper()])
    first = rng.choice([8, 23, 34, 46, 51, 62, 77, 81, 91, 104, 130, 141, 151, 185, 193, 203, 212])
    return f"{first}.{rng.randint(4, 95)}.{rng.randint(0, 255)}.{rng.randint(1, 254)}"


PHONES = (  # each as printed somewhere on a page of that country
    "(%##) %##-####", "+1 (%##) %##-####", "+1-%##-%##-####", "1-800-%##-####", "%##.%##.####", "+1 %## %## ####",
    "+44 20 7946 0###", "020 7946 0###", "07%## ######", "+44 7%## ######", "01632 960###", "(01632) 960 ###",
    "+44 (0)20 7946 0###",
    "+49 30 %######", "030 / %######", "030/%######", "0151 %#######", "0171-%######", "(089) %## ## ##",
    "+49 (0) 89 %######", "0711 %####-##", "+4915%########", "0049 89 %######",
    "01 %# ## ## ##", "06.%#.##.##.##", "+33 6 %# ## ## ##", "06-%#-##-##-##", "+33 (0)1 %# ## ## ##",
    "+34 6## ## ## ##", "6%# ### ###", "6%# ## ## ##", "+34 91 ### ## ##",
    "06 %### ####", "+39 06 %### ####", "02-%#######", "+39 3## #######", "3%# ### ####",
    "020-%######", "06-%#######", "+31 6 %#######", "+31 (0)20 %## ####",
    "044 %## ## ##", "+41 44 %## ## ##", "079 %## ## ##", "0664 %######", "+43 664 %######",
    "08-%## ### ##", "070-%## ## ##", "+46 70 %## ## ##", "+45 %# ## ## ##", "+47 9## ## ###", "+48 6## ### ###",
    "+358 40 %######", "+420 %## ### ###",
    "03-%###-####", "090-%###-####", "0120-%##-###", "+81 3-%###-####", "+81-90-%###-####",
    "138 %### ####", "138-%###-####", "010-%#######", "+86 138 %### ####", "010-%###-####", "+82 10-%###-####",
    "+86-10-%#######",
    "+91 98### #####", "98### #####", "+91-98########", "080-%#######", "+91 80 %### ####",
    "(11) 9%###-####", "+55 11 9%###-####", "(21) %###-####", "+52 55 %### ####", "+54 11 %###-####",
    "+54 9 11 %###-####",
    "+7 495 %##-##-##", "8 (495) %##-##-##", "8-800-%##-##-##", "+7 (9##) %##-##-##", "+380 44 %## ## ##",
    "02 %### ####", "(02) %### ####", "04## ### ###", "+61 4## ### ###", "+61 2 %### ####", "+64 21 ### ####",
    "+27 82 ### ####",
    "+90 532 ### ## ##", "0532 ### ## ##", "+966 5# ### ####", "+971 50 ### ####", "+20 10 #### ####",
    "+234 803 ### ####", "+254 7## ######",
)  # fmt: skip
CALLED = (  # unformatted, local or unusual: only the words before it say what it is
    "%#########", "13%########", "0%########", "%##-####", "%######", "0%##########", "%## ####", "%### ####",
    "%#-##-##-##",
)  # fmt: skip
CALLS = ("Tel: ", "Tel. ", "tel.: ", "Phone: ", "phone number: ", "Call ", "call us at ", "Fax: ", "Mobile: ",
         "Mobil: ",
         "Handy: ", "Telefon: ", "Téléphone : ", "Teléfono: ", "电话：", "手机: ", "телефон: ", "тел. ", "WhatsApp: ",
         "Text me at ", "ph. ", "Tél : ", "phone = ", "هاتف: ")  # fmt: skip


def phone(rng: random.Random) -> tuple[str, str]:
    """(what stands before it, the number)"""
    if rng.random() < 0.15:
        return rng.choice(CALLS), fill(rng, rng.choice(CALLED))
    return (rng.choice(CALLS) if rng.random() < 0.5 else ""), fill(rng, rng.choice(PHONES))


KINDS: dict[str, Callable[[random.Random], str]] = {"email": email, "iban": iban, "card": card, "ip": ip}

FRAMES = (
    "Please write to {} before Friday.", "Contact: {}", "{}", "({})", "My old one was {}, the new one is not known.",
    "- {}", "| Anna | {} | Berlin |", 'data = {{"value": "{}"}}', "Sent from {} at noon.", "<b>{}</b>",
    "\u201e{}\u201c",
    "Bitte an {} schicken.", "请联系 {} 谢谢。", "Отправьте на {}, пожалуйста.", "لمزيد من المعلومات: {}", "संपर्क: {}",
    "see {}.", "[{}]", "Really? {}! Yes.", "a; {}; b", "user='{}'", "# {}",
)  # fmt: skip


# --- what only looks like it --------------------------------------------------------------------------------------

LOOKALIKES = (
    "version 1.2.3.4", "v4.8.15.16", "Version: 11.0.22.7", "release 2.4.6.8 is out", "pip install foo==8.4.2.1",
    "Chrome/91.0.44.72",
    "package@5.4.3.2", "firmware 3.14.15.92", "see section 4.3.2.1", "upgrade from 8.1.2.3 to 8.1.2.4 version",
    "foo-8.8.4.4.tar.gz",
    "OID 1.3.6.1.4.1.311", "1.3.6.1.2.1", "127.0.0.1", "0.0.0.0", "192.168.1.17", "10.0.0.138", "172.16.254.1",
    "255.255.255.0", "::1",
    "fe80::1ff:fe23:4567:890a", "300.400.500.600", "8.8.8", "1.2.3.4.5", "AssemblyVersion(\"6.5.4.3\")",
    ">=3.2.1.9,<4", "nginx/1.18.44.2",
    "2024-01-15", "15.01.2024", "01/15/2024", "2023-12-31 23:59:59", "20231231235959", "12:34:56", "1990-2020",
    "2019/2020", "1939\u20131945",
    "2024-03-05T10:20:30.123456Z", "Mon, 12 Feb 2023 10:11:12 +0200", "03.10.1990", "5.6.2021 12:30", "11-12-2013",
    "12 10 1989",
    "ISBN 978-3-16-148410-0", "ISBN 0-306-40615-2", "978-0-13-468599-1", "ISBN: 9780134685991", "ISSN 2049-3630",
    "doi:10.1000/182", "10.1145/3292500.3330701",
    "arXiv:2107.06499", "EAN 4006381333931", "order 302-1234567-1234567", "Order #48291035",
    "Bestellnummer 4711-0815-2342", "invoice 2023-004217",
    "tracking number 9400110200881234567890", "订单号 202308151234", "SKU 55-102-3384", "part no. 415-555-2671-B",
    "US Patent 6,285,999",
    "3.141592653589793", "2.718281828459045", "0.1234567890123456", "52.520008, 13.404954", "-33.868820 151.209296",
    "40.7128\u00b0 N, 74.0060\u00b0 W",
    "6.02214076e23", "1,234,567.89", "1.234.567,89", "1 234 567", "10 000 000", "$4 111 111", "12345678901234567890",
    "0x7fffffff", "100 200 300 400",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "d41d8cd98f00b204e9800998ecf8427e",
    "550e8400-e29b-41d4-a716-446655440000",
    "commit 4f76492b026b2d62a1c9", "00:1a:2b:3c:4d:5e", "std::vector<int>", "x[2000::2]", "a::b::c", "12:30:45:10",
    "#1234567", "U+1F600",
    "a@b", "@app.route('/x')", "@dataclass", "x = A@B.T", "W@x.transpose(0, 1)", "user@host",
    "git@github.com:openai/gpt-2.git", "logo@2x.png", "react@18.2.0",
    "@types/node", "https://medium.com/@someone", "ssh root@server", "{%-@ foo.bar %}", "3 @ 4.50", "root@127.0.0.1",
    "foo@bar.", "@media (max-width: 600px)",
    "https://user:secret@host.example.com/x", "y = q@k.mT", "me@", "50 @ 3.99 each", "numpy@latest",
    "lodash@4.17.21", "icon@3x.jpeg", "@example.com",
    "1234 5678 9012 3456", "4111 1111 1111 1112", "5500000000000005", "1700000000000", "1699999999.123456",
    "DE89 3704 0044 0532 0130 01",
    "GB00 WEST 1234 5698 7654 32", "AB12 CDEF 3456", "XX82WEST12345698765432",
    "SHA-1 2FD4E1C67A2D28FCED849EE1BB76E739", "ID: 4000123412341234",
    "timeout=30000 retries=10", "lines 100-200, 300-400", "pages 415-555", "rows 1024 2048 4096 8192",
    "[1, 22, 333, 4444, 55555]", "ratio 16:9", "7 (3.5%)",
    "97 98 99 100 101 102", "1 2 3 4 5 6 7 8 9", "0 0 0 0 0 0 0 0 1", "01 02 03 04 05 06 07", "12 34 56 78 90 12 34",
    "0.5 0.25 0.125 0.0625", "1/2/3/4/5/6/7",
    "zip 12345-6789", "PLZ 10115", "SSN 123-45-6789", "CAS 7732-18-5", "RFC 2616, 7230-7235", "MH370",
    "Boeing 747-8", "Windows NT 10.0", "B0 0A 12 34",
    "2001-09-11", "1914-1918", "24/7", "9-11", "50-60%", "100000000", "1e-08", "range(1000000)", "0b1010101010",
    "port 8080", "65536 * 1024", "1920x1080",
    "item 12-3456-78", "model 600-700-800X", "Psalm 119:105", "Gen. 1:1-2:4", "$1,000,000", "EUR 1.500.000,00",
    "200 000 000 km", "299 792 458 m/s",
    "0399 0308 0342", "GREEK 1FB7; 0391 0342 0345;", "00:00:00 2017", '"total_memory": "17179869184"',
    "Upgrade V8 to 3.6.6.15",
    "merged to 1.6.2.3", "float32[1024,4096]", "C6H12O6", "3,4-methylenedioxy", "1-2-3-4-5-6", "2^31 = 2147483648",
    "UTC+01:00", "#ff8800", "99.99.99", "10.04.2", "K-12345678",
)  # fmt: skip


def page(rng: random.Random, lines: int) -> tuple[str, list[Planted]]:
    """A text of so many lines, and what is planted where."""
    parts, planted, at = [], [], 0
    for _ in range(lines):
        frame = rng.choice(FRAMES)
        head, tail = frame.replace("{{", "{").replace("}}", "}").split("{}") if "{{" not in frame else _split(frame)
        kind = rng.choice(["email", "phone", "iban", "card", "ip", "", "", "", "", ""])
        before, what = ("", rng.choice(LOOKALIKES)) if not kind else phone(rng) if kind == "phone" else ("",
                                                                                                         KINDS[kind](rng))
        head += before
        if kind:
            planted.append(Planted(at + len(head), at + len(head) + len(what), kind))
        line = head + what + tail + "\n"
        parts.append(line)
        at += len(line)
    return "".join(parts), planted


def _split(frame: str) -> tuple[str, str]:
    head, tail = frame.format("\0").split("\0")
    return head, tail
