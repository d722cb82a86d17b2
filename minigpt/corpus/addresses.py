"""E-mail and IP addresses, and what only looks like them: decorators, package versions, pictures for two densities."""

import ipaddress
import re
from collections.abc import Iterator

import regex

Span = tuple[int, int]

# Endings of more than two letters that people have addresses under. All of two letters are countries'.
ENDINGS = (
    "com org net edu gov mil int info biz name pro mobi asia aero coop jobs museum travel tel cat post xyz online site "
    "shop store tech space website app dev page cloud blog news email mail live life world today agency company "
    "digital media studio design art music film photo photography love family club team group network systems "
    "solutions services software technology consulting engineering energy health care clinic dental hospital doctor "
    "academy school university college education institute science research foundation church charity green eco "
    "global international center city town berlin hamburg koeln bayern wien paris london nyc tokyo moscow amsterdam "
    "brussels swiss scot wales cymru eus gal bzh law legal attorney lawyer finance bank capital ventures partners "
    "holdings ltd llc gmbh inc house homes property estate realty restaurant cafe pizza bar beer wine hotel tours "
    "games game fun cool wtf lol ninja rocks guru expert zone plus one top vip work works bike run fit fitness yoga"
)  # fmt: skip
ENDING = "(?:[A-Za-z]{2}|" + "|".join(ENDINGS.split()) + r"|[^\W\d_a-zA-Z]{2,}|xn--[a-z0-9-]+)"
LOCAL = re.compile(r"[\w.+%&'-]{1,64}\Z")
QUOTE = re.compile(r"(?<![^\W_])(?:[^\W\d_]{1,2})'(?=[^\W\d_])")  # O'Brien, not the quote that opens a string
DOMAIN = re.compile(rf"(?:\w(?:[\w-]{{0,61}}\w)?\.)+({ENDING})(?![\w-]|\.\w|[(\[=]|:\w*[A-Za-z/~])", re.IGNORECASE)
SPELLED_AT = regex.compile(r"(?i)at ?[\])}>]")
SPELLED_NAME = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63} ?[\[({<] ?\Z")
SPELLED_DOMAIN = re.compile(
    r" ?[a-z0-9-]+(?:(?:\.| ?[\[({<] ?(?:dot|punkt|point) ?[\])}>] ?)[a-z0-9-]+)+(?<=[a-z])(?!\w)", re.IGNORECASE
)
FILES = {"py", "js", "ts", "so", "md", "rs", "sh", "pl", "cc", "hs", "ml", "gz", "ps"}  # ... that are countries, too
PICTURE = re.compile(r"@\dx\.", re.IGNORECASE)  # logo@2x.png


def find_emails(text: str) -> Iterator[Span]:
    """name@domain.ending, and name [at] domain [dot] ending."""
    at = text.find("@")
    while at >= 0:
        # most are decorators, which have nothing before them
        surrounded = text[at - 1 : at].strip() and text[at + 1 : at + 2].isalnum()
        if surrounded and (span := email_around(text, at)) is not None:
            yield span
        at = text.find("@", at + 1)
    for sign in SPELLED_AT.finditer(text):
        before = text[max(0, sign.start() - 66) : sign.start()]
        name, domain = SPELLED_NAME.search(before), SPELLED_DOMAIN.match(text, sign.end())
        if name and domain:
            yield sign.start() - len(name[0]), domain.end()


def email_around(text: str, at: int) -> Span | None:
    """The address whose @ stands at `at`, if it is one."""
    local = LOCAL.search(text[max(0, at - 64) : at])
    domain = DOMAIN.match(text, at + 1)
    if local is None or domain is None or domain[1].lower() != domain[1] != domain[1].upper():
        return None  # A@B.mT multiplies matrices
    name = local[0]
    quotes = {match.end() - 1 for match in QUOTE.finditer(name)}
    cut = max((i + 1 for i, c in enumerate(name) if c == "'" and i not in quotes), default=0)
    name = name[cut:].lstrip(".'&+%-")
    start = at - len(name)
    if not name or name.endswith(".") or ".." in name or PICTURE.match(text, at) or is_password(text, start):
        return None
    one_label = "." not in domain[0][: -len(domain[1]) - 1]
    if len(name) == 1 and one_label and domain[1].lower() in FILES:
        return None
    return start, domain.end()


def is_password(text: str, start: int) -> bool:
    """Whether this stands in a URL: https://user:password@host."""
    scheme = text.rfind("://", max(0, start - 80), start)
    return scheme >= 0 and not re.search(r"[\s\"'<>,;()]", text[scheme:start]) and "/" not in text[scheme + 3 : start]


# --- IP -----------------------------------------------------------------------------------------------------------

OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
IPV4_CORE = re.compile(r"\.[0-9]{1,3}\.[0-9]")
IPV4 = re.compile(rf"(?:{OCTET}\.){{3}}{OCTET}(?![\w-]|\.\w|,\d|\W{{0,2}}(?:version|release|build)\b)")
NOT_BEFORE_IPV4 = re.compile(r"[\w.]\Z|[^\W\d]-\Z|\d,\Z")
# what comes before four small numbers that count versions, sections or objects, not computers
NO_ADDRESS = re.compile(
    r"(?:(?:\b|_)(?:v|ver|vers|version|versions|versión|versie|wersja|release|rev|revision|build|firmware|driver|section|sec|"
    r"chapter|clause|para|paragraph|appendix|table|figure|fig|oid|patch|update|upgrade|upgraded|kernel|sdk|api|plugin|"
    r"assemblyversion|fileversion|productversion|rfc|"
    r"requires|since)(?:\b|_)_?[^\w\n]{0,4}(?:to |from |is |no\.? |number )?"
    r"|\b(?:upgrad|updat|downgrad|bump|patch|merg|backport|port|releas)(?:e|es|ed|ing|s)?\b[^\n.,;:]{0,24}"
    r"|(?:[=<>~!]=|\^) ?[\"']?|[A-Za-z]/|§ ?)\Z",
    re.IGNORECASE,
)
ABOUT_HOSTS = re.compile(
    r"\bip(?:v4)?\b|addr|host|server|dns|resolv|\bping\b|connect|client|gateway|rout|firewall|subnet|proxy|\d[:/]\d",
    re.IGNORECASE,
)
HEADING = re.compile(r"(?:[1-9]?\d\.){3}[1-9]?\d\.? +[^\W\d]")  # 7.4.2.2 GCM, at the beginning of a line
IPV6_CORE = re.compile(r":[0-9A-Fa-f]{0,4}:")
IPV6 = re.compile(  # a colon may follow, as after any word, if nothing follows the colon
    r"[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7}(?:(?<=[0-9A-Fa-f])|(?<=::))(?!\w|:[\w:])"
)


def find_ips(text: str) -> Iterator[Span]:
    """Public addresses of both kinds: 10.0.0.1 and fe80::1 are somebody's in every house."""
    end = 0
    for core in IPV4_CORE.finditer(text):
        start = core.start()
        while start > end and core.start() - start < 3 and text[start - 1] in "0123456789":
            start -= 1
        before = text[max(0, start - 40) : start]
        match = IPV4.match(text, start)
        if match is None or NOT_BEFORE_IPV4.search(before) or NO_ADDRESS.search(before):
            continue
        if before[-1:] in ("", "\n") and HEADING.match(text, start):
            continue
        end = match.end()
        if is_small(match[0]) and (before.endswith("@") or not ABOUT_HOSTS.search(text[max(0, start - 48) : end + 16])):
            continue
        if ipaddress.ip_address(match[0]).is_global:
            yield match.span()
    end = 0
    for core in IPV6_CORE.finditer(text):
        if core.start() < end:
            continue
        start = core.start()
        while start > end and core.start() - start < 40 and text[start - 1] in "0123456789abcdefABCDEF:":
            start -= 1
        match = IPV6.match(text, start)
        if match and not text[start - 1 : start].isalnum() and is_public_ipv6(match[0]):
            end = match.end()
            yield match.span()


def is_small(address: str) -> bool:
    """Whether a version is likelier: 1.7.3.5 is Git's. One public address in 16,000 is as small."""
    numbers = [int(number) for number in address.split(".")]
    return numbers[0] < 10 and max(numbers) <= 30


def is_public_ipv6(text: str) -> bool:
    """An address that was given to somebody begins with 2 or 3; a slice such as x[2000::2] is none."""
    try:
        return ipaddress.IPv6Address(text).is_global and len([group for group in text.split(":") if group]) > 2
    except ValueError:
        return False
