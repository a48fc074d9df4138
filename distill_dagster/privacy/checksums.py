"""Check digits of identifiers. Every function takes digits (or letters and digits) without separators."""

from __future__ import annotations

from collections.abc import Sequence

_IBAN_LENGTHS = """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24
FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32
LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24
RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""
#: Length of an IBAN by country (SWIFT's IBAN registry).
IBAN_LENGTH = {entry[:2]: int(entry[2:]) for entry in _IBAN_LENGTHS.split()}

_D_ROWS = """
0123456789 1234067895 2340178956 3401289567 4012395678 5987604321 6598710432 7659821043 8765932104 9876543210
"""
_P_ROWS = "0123456789 1576283094 5803796142 8916043527 9453126870 4286573901 2793806415 7046913258"
_VERHOEFF_D, _VERHOEFF_P = (tuple(rows.split()) for rows in (_D_ROWS, _P_ROWS))


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1 annex B: cards, and several national numbers."""
    doubled = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(doubled[value] for value in values[1::2])) % 10 == 0


def weighted(digits: str, weights: Sequence[int]) -> int:
    """Sum of digits times weights, over the shorter of the two."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def iban(text: str) -> bool:
    """ISO 13616: the country's length, and 1 modulo 97."""
    text = text.upper()
    if IBAN_LENGTH.get(text[:2]) != len(text) or not text[2:4].isdecimal():
        return False
    return int("".join(str(int(char, 36)) for char in text[4:] + text[:4])) % 97 == 1


def mod_11_10(digits: str) -> bool:
    """ISO 7064 MOD 11,10 over all digits, the check digit last."""
    product = 10
    for digit in digits[:-1]:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == int(digits[-1])


def mod_11_2(text: str) -> bool:
    """ISO 7064 MOD 11-2; the last character may be X."""
    total = 0
    for char in text:
        total = (total * 2 + (10 if char in "Xx" else int(char))) % 11
    return total == 1


def verhoeff(digits: str) -> bool:
    """Verhoeff's dihedral check (1969), check digit last."""
    state = 0
    for place, digit in enumerate(reversed(digits)):
        state = int(_VERHOEFF_D[state][int(_VERHOEFF_P[place % 8][int(digit)])])
    return state == 0


def ean(digits: str) -> bool:
    """GS1 check digit, last."""
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + 3 * sum(values[1::2])) % 10 == 0


def card(digits: str) -> bool:
    """A payment card: an issuer's range with one of its lengths, and Luhn."""
    size, first4 = len(digits), int(digits[:4])
    first2, first3 = first4 // 100, first4 // 10
    known = (
        (digits[0] == "4" and size in (13, 16, 19))
        or ((51 <= first2 <= 55 or 2221 <= first4 <= 2720) and size == 16)
        or (first2 in (34, 37) and size == 15)
        or ((300 <= first3 <= 305 or first4 == 3095 or first2 in (36, 38, 39)) and 14 <= size <= 19)
        or ((3528 <= first4 <= 3589 or 2200 <= first4 <= 2204) and 16 <= size <= 19)
        or ((digits[0] == "6" or first2 in (50, 56, 57, 58)) and 13 <= size <= 19)
        or (first2 in (81, 82) and 16 <= size <= 19)
        or (first4 == 9792 and size == 16)
    )
    return known and luhn(digits)


def nhs(digits: str) -> bool:
    """NHS number of England, Wales and the Isle of Man: modulus 11, weights 10 to 2."""
    check = (11 - weighted(digits[:9], range(10, 1, -1)) % 11) % 11
    return check == int(digits[9]) and len(set(digits)) > 1


def steuer_id(digits: str) -> bool:
    """German tax identification number: one digit of the first ten stands twice or three times, MOD 11,10."""
    repeats = sorted((digits[:10].count(digit) for digit in set(digits[:10])), reverse=True)
    return digits[0] != "0" and repeats[0] in (2, 3) and (len(repeats) == 1 or repeats[1] == 1) and mod_11_10(digits)


def nir(text: str) -> bool:
    """French social security number with its key: 97 minus the number modulo 97; Corsica's 2A and 2B are 19 and 18."""
    number = text[:13].upper().replace("2A", "19").replace("2B", "18")
    return number.isdecimal() and 97 - int(number) % 97 == int(text[13:])


def dni(text: str) -> bool:
    """Spanish DNI or NIE: the letter is the number modulo 23."""
    number = text[:-1].upper()
    number = {"X": "0", "Y": "1", "Z": "2"}.get(number[0], number[0]) + number[1:]
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[-1].upper()


def cpf(digits: str) -> bool:
    """Brazilian CPF: two modulus 11 digits."""
    first = weighted(digits[:9], range(10, 1, -1)) * 10 % 11 % 10
    second = weighted(digits[:10], range(11, 1, -1)) * 10 % 11 % 10
    return len(set(digits)) > 1 and (first, second) == (int(digits[9]), int(digits[10]))


def pesel(digits: str) -> bool:
    """Polish PESEL."""
    return (10 - weighted(digits[:10], (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10) % 10 == int(digits[10])


def fodselsnummer(digits: str) -> bool:
    """Norwegian birth number: two modulus 11 digits."""
    first = -weighted(digits[:9], (3, 7, 6, 1, 8, 9, 4, 5, 2)) % 11
    second = -weighted(digits[:10], (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return (first, second) == (int(digits[9]), int(digits[10]))


def belgian(digits: str) -> bool:
    """Belgian national number: 97 minus the first nine modulo 97; a 2 stands before them from 2000 on."""
    return any(97 - int(century + digits[:9]) % 97 == int(digits[9:]) for century in ("", "2"))


def tckn(digits: str) -> bool:
    """Turkish identity number."""
    values = [int(digit) for digit in digits]
    tenth = (7 * sum(values[0:9:2]) - sum(values[1:8:2])) % 10
    return values[0] != 0 and values[9] == tenth and values[10] == sum(values[:10]) % 10


def bsn(digits: str) -> bool:
    """Dutch BSN: the eleven test, the last digit counted off."""
    return weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0 and int(digits) > 0


def hetu(text: str) -> bool:
    """Finnish personal identity code: the character is the number modulo 31."""
    return "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(text[:6] + text[7:10]) % 31] == text[10].upper()
