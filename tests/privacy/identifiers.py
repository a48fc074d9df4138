"""Made-up identifiers with right check digits. Imports nothing of the package: what is planted must not be its idea."""

from __future__ import annotations

import random
from collections.abc import Callable

Maker = Callable[[random.Random], str]


def digits(rng: random.Random, count: int) -> str:
    return "".join(str(rng.randrange(10)) for _ in range(count))


def grouped(text: str, sizes: tuple[int, ...], sign: str) -> str:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    assert at == len(text)
    return sign.join(pieces)


def _luhn_digit(body: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def card(rng: random.Random) -> str:
    prefix, size, groups = rng.choice(
        [("4", 16, (4, 4, 4, 4)), ("53", 16, (4, 4, 4, 4)), ("37", 15, (4, 6, 5)), ("6011", 16, (4, 4, 4, 4))]
    )
    body = prefix + digits(rng, size - 1 - len(prefix))
    number = body + _luhn_digit(body)
    sign = rng.choice(["", " ", "-", "."])
    return grouped(number, groups, sign) if sign else number


def iban(rng: random.Random) -> str:
    country, body = rng.choice(
        [
            ("DE", digits(rng, 18)),
            ("FR", digits(rng, 23)),
            ("GB", "WEST" + digits(rng, 14)),
            ("NL", "ABNA" + digits(rng, 10)),
            ("ES", digits(rng, 20)),
        ]
    )
    value = int("".join(str(int(char, 36)) for char in body + country + "00"))
    text = f"{country}{98 - value % 97:02d}{body}"
    if rng.random() < 0.5:
        text = " ".join(text[at : at + 4] for at in range(0, len(text), 4))
    return text if rng.random() < 0.8 else text.lower()


def nhs(rng: random.Random) -> str:
    while True:
        body = digits(rng, 9)
        check = 11 - sum(int(digit) * weight for digit, weight in zip(body, range(10, 1, -1), strict=True)) % 11
        if check != 10 and len(set(body)) > 1:
            text = body + str(check % 11)
            return rng.choice([text, grouped(text, (3, 3, 4), " "), grouped(text, (3, 3, 4), "-")])


def ssn(rng: random.Random) -> str:
    text = f"{rng.randrange(1, 600):03d}{rng.randrange(1, 100):02d}{rng.randrange(1, 10000):04d}"
    return grouped(text, (3, 2, 4), rng.choice(["-", " "]))


def steuer(rng: random.Random) -> str:
    order = rng.sample("0123456789", 9)
    body = [*order, rng.choice(order)]
    rng.shuffle(body)
    if body[0] == "0":
        body.reverse()
    if body[0] == "0":
        return steuer(rng)
    product = 10
    for digit in body:
        total = (int(digit) + product) % 10
        product = (10 if total == 0 else total) * 2 % 11
    check = 11 - product
    text = "".join(body) + str(0 if check == 10 else check)
    return rng.choice([text, grouped(text, (2, 3, 3, 3), " ")])


def nir(rng: random.Random) -> str:
    year, month, place = rng.randrange(100), rng.randrange(1, 13), rng.randrange(1, 96)
    body = f"{rng.choice('12')}{year:02d}{month:02d}{place:02d}{digits(rng, 6)}"
    text = f"{body}{97 - int(body) % 97:02d}"
    return rng.choice([text, grouped(text, (1, 2, 2, 2, 3, 3, 2), " ")])


def dni(rng: random.Random) -> str:
    number = rng.randrange(10_000_000, 100_000_000)
    return f"{number}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}"


def cpf(rng: random.Random) -> str:
    body = digits(rng, 9)
    for start in (10, 11):
        total = sum(int(digit) * (start - place) for place, digit in enumerate(body))
        body += str(0 if total % 11 < 2 else 11 - total % 11)
    return rng.choice([body, f"{body[:3]}.{body[3:6]}.{body[6:9]}-{body[9:]}"])


def email(rng: random.Random) -> str:
    name = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 9)))
    mark = rng.choice([".", "_", "+", "-", ""])
    return f"{name}{mark}{rng.randrange(1000)}@{rng.choice(['example.com', 'mail.example.org', 'post.example.co.uk'])}"


def phone(rng: random.Random) -> str:
    exchange = f"{rng.randrange(200, 1000)}{rng.randrange(200, 1000)}{digits(rng, 4)}"
    return rng.choice(
        [
            f"+49 {rng.randrange(30, 999)} {digits(rng, 7)}",
            f"+{rng.choice(['44', '33', '1', '91'])}{rng.randrange(1, 10)}{digits(rng, 9)}",
            f"({exchange[:3]}) {exchange[3:6]}-{exchange[6:]}",
            grouped(exchange, (3, 3, 4), rng.choice("-. ")),
            f"020 {digits(rng, 4)} {digits(rng, 4)}",
            f"07{digits(rng, 9)}",
            f"0{rng.randrange(1, 10)} " + " ".join(digits(rng, 2) for _ in range(4)),
            f"030/{digits(rng, 7)}",
        ]
    )


def address(rng: random.Random) -> str:
    v4 = ".".join(str(rng.randrange(11, 255)) for _ in range(4))
    return rng.choice([v4, ":".join(f"{rng.randrange(4096, 65536):x}" for _ in range(8))])


def mac(rng: random.Random) -> str:
    return rng.choice(":-").join(f"{rng.randrange(256):02x}" for _ in range(6))


def born(rng: random.Random) -> str:
    year, month, day = rng.randrange(1930, 2010), rng.randrange(1, 13), rng.randrange(1, 29)
    return rng.choice(
        [
            f"born on {day:02d}/{month:02d}/{year}",
            f"date of birth: {year}-{month:02d}-{day:02d}",
            f"DOB {day} March {year}",
        ]
    )


def key(rng: random.Random) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    body = "".join(rng.choice(letters) for _ in range(40))
    return rng.choice([f"AKIA{body[:16]}", f"ghp_{body[:36]}", f"sk-proj-{body.lower()}", f"xoxb-{body[:24]}"])


def login(rng: random.Random) -> str:
    return f"https://user{rng.randrange(1000)}:{digits(rng, 8)}pw@db.example.org/x"


PLAIN: dict[str, Maker] = {
    "card": card,
    "iban": iban,
    "nhs": nhs,
    "ssn": ssn,
    "steuer": steuer,
    "nir": nir,
    "dni": dni,
    "cpf": cpf,
    "email": email,
    "phone": phone,
    "address": address,
    "mac": mac,
    "born": born,
    "key": key,
    "login": login,
}


def disguised(rng: random.Random, text: str) -> str:
    """The same to a reader, other characters to a machine."""
    trick = rng.randrange(6)
    if trick == 0:
        return "".join(chr(ord(char) + 0xFEE0) if char.isdecimal() else char for char in text)
    if trick == 1:
        return "".join(char + rng.choice(["", "", "\u200b", "\u00ad", "\u2060"]) for char in text[:-1]) + text[-1]
    if trick == 2:
        return text.replace(" ", "\u00a0").replace("-", "\u2011")
    if trick == 3:
        return "".join(f"&#{ord(char)};" if rng.random() < 0.4 else char for char in text)
    if trick == 4:
        return text.replace("@", "&commat;").replace(".", "&period;")
    return "".join(chr(ord("\u0660") + int(char)) if char.isdecimal() else char for char in text)
