"""Personal data that a pattern can tell for sure, or nearly so. Names and addresses are not among them.

Kinds: `EMAIL`, `PHONE`, `IBAN`, `CARD`, `IP`, `MAC`, `BIRTH_DATE` (a date that is said to be one), `ID` (a passport or
patient number that is said to be one), and national numbers, each by its own name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from distill_dagster.privacy import checksums, numbers
from distill_dagster.privacy.found import Finding

#: Which kind names a stretch that two patterns claim.
KINDS = (
    "EMAIL",
    "IBAN",
    "CARD",
    "NIR",
    "RESIDENT_ID",
    "CODICE_FISCALE",
    "DNI",
    "HETU",
    "NINO",
    "SSN",
    "BSN",
    *dict.fromkeys(scheme.kind for schemes in numbers.SCHEMES.values() for scheme in schemes),
    "CPR",
    "BIRTH_DATE",
    "ID",
    "MAC",
    "IP",
    "PHONE",
)

#: Letters are ASCII ones: a Chinese character ends a number as a blank does.
_IA = re.I | re.A

_MONTH = (
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|m[aä]rz|mai|juni?|juli?|okt|dez|janv|f[ée]vr?|avr|ao[uû]t|d[ée]c|"
    r"ene|abr|ago|dic)[^\W\d_]{0,8}\.?"
)
_DAY = (
    r"(?:\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./ ]\d{1,2}[-./ ](?:\d{4}|\d{2})|\d{4} ?年 ?\d{1,2} ?月 ?\d{1,2} ?日|"
    rf"\d{{1,2}}(?:st|nd|rd|th|\.)? (?:of |de )?{_MONTH},? (?:de )?\d{{4}}|"
    rf"{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}})"
)
_BORN = (
    r"born(?: on)?|date of birth|birth ?da(?:te|y)|d\.? ?o\.? ?b\b\.?|geb(?:oren|\.)?(?: am)?|geburtsdatum|n[ée]e? le|"
    r"date de naissance|fecha de nacimiento|nacid[oa] el|出生(?:日期|于)?|生年月日"
)
_LABEL = r"(?: ?(?:no|nr|num|number|nummer|id|code)\b)?[ \t.:#=(]{0,4}(?:is )?"

_EMAIL = re.compile(
    r"(?<![\w.+-])[\w.!#$%&'*+/=?^`{|}~-]{1,64}(?:@| @ | ?[\[({] ?at ?[\])}] ?)"
    r"(?:[^\W_][\w-]{0,62}(?:\.| ?[\[({] ?dot ?[\])}] ?)){1,8}[^\W\d_][\w-]{0,62}",
    re.I,
)
_PLUS_PHONE = re.compile(r"(?<![\w+])\+ ?\(?[1-9]\d{0,3}\)?(?:[ .\-/]{0,2}\(?\d{1,12}\)?){1,7}(?!\d)", re.A)
_AREA_PHONE = re.compile(r"(?<!\w)(?:1[ .-]?)?\(0?\d{2,5}\)[ .-]{0,2}\d{2,8}(?:[ .\-/]\d{2,5}){0,3}(?!\d)", re.A)
_SAID_PHONE = re.compile(
    r"\b(?:tele?(?:ph?one?|fono?)?|phone|mobile|mobil|cell|handy|fax|whatsapp|t[ée]l[ée]?phone|t[ée]l|telefon|"
    rf"tel[ée]fono|m[óo]vil){_LABEL}(\+?\d(?:[ .\-/()]{{0,2}}\d){{5,14}})(?!\d)|"
    r"(?:电话|手机)[号码]{0,2}[: ]{0,2}(\d[\d -]{5,14}\d)",
    _IA,
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[ .-]?\d{2}(?=[ .-]?[A-Za-z0-9])")
_NIR = re.compile(
    r"(?<!\d)[1-478][ .-]?\d{2}[ .-]?(?:0[1-9]|[1-9]\d)[ .-]?(?:\d{2}|2[AB])[ .-]?\d{3}[ .-]?\d{3}[ .-]?\d{2}(?!\d)",
    _IA,
)
_RESIDENT = re.compile(
    r"(?<!\d)\d{6}[ -]?(?:18|19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])[ -]?\d{3}[\dX](?![A-Za-z0-9])", re.I
)
_DNI = re.compile(r"(?<![A-Za-z0-9])(?:\d{8}|\d{2}\.\d{3}\.\d{3}|[XYZ][ .-]?\d{7})[ .-]?[A-Z](?![A-Za-z0-9])", _IA)
_FISCALE = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{3} ?[A-Z]{3} ?\d{2}[A-EHLMPRST]\d{2} ?[A-Z]\d{3}[A-Z](?![A-Za-z0-9])", _IA
)
_HETU = re.compile(r"(?<!\d)\d{6}[-+A-FU-Y]\d{3}[0-9A-Y](?![A-Za-z0-9])", _IA)
_NINO = re.compile(r"(?<![A-Za-z0-9])[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?:[ .-]?\d{2}){3}[ .-]?[A-D](?![A-Za-z0-9])")
_IPV4 = re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?!\.?\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-f]{0,4}:){2,7}(?:[0-9a-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])", _IA)
_MAC = re.compile(r"(?<![\w:-])[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}(?![\w:-])", _IA)
_BIRTH = re.compile(rf"(?:(?<!\w)(?:{_BORN}))[ \t:=,()-]{{0,4}}({_DAY})", _IA)
_SAID_SSN = re.compile(rf"\b(?:ssn|itin|social security){_LABEL}(\d{{9}}|\d{{3}}[ .-]\d{{2}}[ .-]\d{{4}})(?!\d)", _IA)
_SAID_BSN = re.compile(rf"\b(?:bsn|burgerservicenummer|sofinummer){_LABEL}(\d(?:[ .-]?\d){{8}})(?!\d)", _IA)
_SAID_ID = re.compile(
    r"\b(?:passport|reisepass(?:nummer)?|personalausweis(?:nummer)?|passeport|pasaporte|driver'?s licen[cs]e|mrn|"
    rf"medical record|patient id|patient|insurance|versichertennummer){_LABEL}"
    r"((?=[A-Z0-9-]*\d{3})[A-Z0-9][A-Z0-9-]{4,13})(?![\w-])",
    _IA,
)
#: Words without which nothing is said to be a telephone number, a date of birth, and so on.
_SAID = (
    (
        _SAID_PHONE,
        "PHONE",
        ("phone", "tel", "tél", "mobil", "cell", "handy", "fax", "whatsapp", "móvil", "movil", "电话", "手机"),
    ),
    (
        _BIRTH,
        "BIRTH_DATE",
        (
            "born",
            "birth",
            "d.o",
            "dob",
            "d. o",
            "geb",
            "né",
            "nee le",
            "ne le",
            "naissance",
            "nacim",
            "nacid",
            "出生",
            "生年",
        ),
    ),
    (_SAID_SSN, "SSN", ("ssn", "itin", "social sec")),
    (_SAID_BSN, "BSN", ("bsn", "burgers", "sofi")),
    (_SAID_ID, "ID", ("pass", "ausweis", "pasap", "licen", "mrn", "medical", "patient", "insurance", "versicher")),
)
_SPELLED_AT = re.compile(r"[\[({] ?at ?[\])}]", re.I)
_LONG = re.compile(r"\d(?:[ \t./()+-]{0,4}\d){6}")
_DOTTED = re.compile(r"\d\.\d{1,3}\.\d{1,3}\.\d")
_HEX_PAIRS = re.compile(r"[0-9a-f]{2}[:-][0-9a-f]{2}[:-]")
_HEX_DOTS = re.compile(r"\b(?=[0-9.]*[a-f])[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4}\b", _IA)
_FISCALE_CORE = re.compile(r"\d{2}[A-Za-z]\d{2} ?[A-Za-z]\d{3}")
_PAIRS = re.compile(r"[A-Z] ?[.-]?\d{2}[ .-]?\d{2}[ .-]?\d{2}[ .-]?[A-D]")
_GAPS = re.compile(r"[\s.\-/()]+")


def find(text: str) -> Iterator[Finding]:
    """Personal data in a plain text; findings may overlap.

    What a pattern cannot do without is looked for first, since most texts hold none of it.
    """
    if "@" in text or _SPELLED_AT.search(text):
        yield from (_whole(one, "EMAIL") for one in _EMAIL.finditer(text))
    lower = text.lower()
    if ":" in text:
        yield from _ipv6(text)
    if _HEX_PAIRS.search(lower):
        yield from (_whole(one, "MAC") for one in _MAC.finditer(text))
    yield from (_whole(one, "MAC") for one in _HEX_DOTS.finditer(text))
    if _DOTTED.search(text):
        for one in _IPV4.finditer(text):
            # 1.2.3.4 is a section or a version more often than a person's address.
            if any(len(octet) > 1 for octet in one.group().split(".")):
                yield Finding(one.start(), one.end(), "IP", one.group())
    if _LONG.search(text):
        yield from _digits(text)
    for pattern, kind, words in _SAID:
        if any(word in lower for word in words):
            for one in pattern.finditer(text):
                group = 1 if one[1] is not None else 2
                if kind != "BSN" or checksums.bsn(_bare(one[1])):
                    yield Finding(one.start(group), one.end(group), kind, _bare(one[group]))
    if _FISCALE_CORE.search(text):
        yield from (_whole(one, "CODICE_FISCALE") for one in _FISCALE.finditer(text))
    if _PAIRS.search(text):
        yield from (_whole(one, "NINO") for one in _NINO.finditer(text))


def _digits(text: str) -> Iterator[Finding]:
    """What has seven digits or more."""
    yield from numbers.find(text)
    if "+" in text:
        for one in _PLUS_PHONE.finditer(text):
            if 8 <= _count(one.group()) <= 15:
                yield _whole(one, "PHONE")
    if "(" in text:
        for one in _AREA_PHONE.finditer(text):
            if 8 <= _count(one.group()) <= 13:
                yield _whole(one, "PHONE")
    yield from _iban(text)
    for pattern, kind, check in (
        (_NIR, "NIR", checksums.nir),
        (_RESIDENT, "RESIDENT_ID", checksums.mod_11_2),
        (_DNI, "DNI", checksums.dni),
        (_HETU, "HETU", checksums.hetu),
    ):
        yield from (_whole(one, kind) for one in pattern.finditer(text) if check(_checked(one.group(), kind)))


def _ipv6(text: str) -> Iterator[Finding]:
    for one in _IPV6.finditer(text):
        try:
            address = ipaddress.IPv6Address(one.group())
        except ValueError:
            continue
        if not (address.is_unspecified or address.is_loopback):
            yield Finding(one.start(), one.end(), "IP", str(address))


def _iban(text: str) -> Iterator[Finding]:
    for one in _IBAN.finditer(text):
        size = checksums.IBAN_LENGTH.get(one.group()[:2].upper())
        if size is None:
            continue
        letters, at = "", one.start()
        while at < len(text) and len(letters) < size:
            if text[at].isascii() and text[at].isalnum():
                letters += text[at]
            elif text[at] not in " .-\t" or text[at - 1] in " .-\t":
                break
            at += 1
        if len(letters) == size and checksums.iban(letters):
            yield Finding(one.start(), at, "IBAN", letters.upper())


def _whole(one: re.Match[str], kind: str) -> Finding:
    return Finding(one.start(), one.end(), kind, one.group().casefold() if kind == "EMAIL" else _bare(one.group()))


def _checked(text: str, kind: str) -> str:
    return text if kind == "HETU" else _bare(text)


def _bare(text: str) -> str:
    return _GAPS.sub("", text).upper()


def _count(text: str) -> int:
    return sum(char.isdigit() for char in text)
