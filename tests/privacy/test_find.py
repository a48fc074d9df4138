"""What is found and what is not, on values whose check digits are published or were worked out by hand."""

from __future__ import annotations

import random

import pytest

from distill_dagster.privacy.mask import find, is_secret
from privacy.identifiers import PLAIN, disguised


def kinds(text: str) -> list[str]:
    return [one.kind for one in find(text)]


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (
            "EMAIL",
            ["jane.doe@example.com", "JANE+x@sub.example.co.uk", "jane [at] example [dot] com", "jane @ example.com"],
        ),
        ("IBAN", ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "fr14 2004 1010 0505 0001 3m02 606"]),
        ("CARD", ["4111111111111111", "4111-1111-1111-1111", "3782 822463 10005", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"]),
        ("SSN", ["078-05-1120", "078 05 1120", "SSN: 078051120"]),
        ("NHS_NUMBER", ["943 476 5919", "9434765919"]),
        ("STEUER_ID", ["86095742719", "86 095 742 719"]),
        ("NIR", ["2 55 08 14 168 025 38", "255081416802538"]),
        ("DNI", ["12345678Z", "X1234567L"]),
        ("CODICE_FISCALE", ["RSSMRA85T10A562S"]),
        ("HETU", ["131052-308T"]),
        ("CPF", ["529.982.247-25", "52998224725"]),
        ("PESEL", ["44051401359"]),
        ("AADHAAR", ["2341 2341 2346"]),
        ("AHV_NUMBER", ["756.9217.0769.85"]),
        ("RESIDENT_ID", ["11010519491231002X"]),
        ("TCKN", ["10000000146"]),
        ("PERSONNUMMER", ["811228-9874", "19811228-9874"]),
        ("NINO", ["AB 12 34 56 C", "AB123456C"]),
        ("BSN", ["BSN 111222333"]),
        (
            "PHONE",
            ["(555) 123-4567", "+44 20 7946 0958", "020 7946 0958", "07911123456", "01 23 45 67 89", "tel. 555 0199"],
        ),
        ("IP", ["192.168.10.12", "8.8.44.1", "fe80::1ff:fe23:4567:890a", "2001:db8::1"]),
        ("MAC", ["00:1A:2B:3C:4D:5E", "00-1a-2b-3c-4d-5e", "001a.2b3c.4d5e"]),
        ("BIRTH_DATE", ["born on 12 March 1980", "DOB: 1980-03-12", "geb. am 12.3.1980", "né le 12/03/1980"]),
        ("ID", ["passport no. X1234567", "MRN: 12345678"]),
        ("URL_PASSWORD", ["https://user:pa55@example.com/x", "postgres://u:p@db.example.org/x"]),
        ("PRIVATE_KEY", ["-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----"]),
        ("JWT", ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-_1"]),
        ("API_KEY", ["AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1B2" * 9, "api_key=abcdef1234567890abcdef"]),
        ("PASSWORD", ["password: hunter22", "the password is s3cret!x"]),
    ],
)
def test_found(kind: str, texts: list[str]) -> None:
    for text in texts:
        for around in ("{}", "Please see {}, thanks.", "({})", "说{}。"):
            assert kinds(around.format(text)) == [kind], (text, around)
    assert is_secret(kind) == (kind in ("URL_PASSWORD", "PRIVATE_KEY", "JWT", "API_KEY", "PASSWORD"))


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",  # Luhn
        "1234 5678 9012 3456",  # no issuer
        "DE89 3704 0044 0532 0130 01",
        "1434765918 items",
        "pi is 3.14159265358979, and 0.30000000000000004 is a sum",
        "On 2024-11-24 22:49:18 and 2024-11-24 2024-11-25, 05-06-2024 12:00",
        "12:30:45 to 13:00:00",
        "1,234,567.89 EUR of 12.345.678 in 2019 2020 2021 2022 2023",
        "Section 1.2.3.4 of version 10.2",
        "ISBN 978-3-16-148410-0",
        "the meeting at example street, @user and #tag",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0bba3e9f6f8f2c1b0c9d8e",
        "the password must be long and the api key stays secret",
        "1 2 3 4 5 6 7 8 9",
        "x = 100 + 200 - 300",
    ],
)
def test_not_found(text: str) -> None:
    assert kinds(text) == []


@pytest.mark.parametrize("name", PLAIN)
def test_a_disguise_hides_nothing(name: str) -> None:
    rng = random.Random(name)
    for _ in range(300):
        text = PLAIN[name](rng)
        hidden = disguised(rng, text)
        assert find(f"See {text} here."), text
        assert find(f"See {hidden} here."), (text, hidden)


def test_spans_are_those_of_the_original() -> None:
    text = "Mail j\u200ba\u00adne&#64;example&period;com now"
    (one,) = find(text)
    assert text[one.start : one.end] == "j\u200ba\u00adne&#64;example&period;com"
    assert one.value == "jane@example.com"
