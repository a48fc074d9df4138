"""Secrets by their shape: keys with an issuer's prefix, private key blocks, tokens, and passwords in addresses.

A string of random letters without a prefix or a name before it is not found: a digest looks the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from distill_dagster.privacy.found import Finding

#: Which kind names a stretch that two patterns claim.
KINDS = ("PRIVATE_KEY", "URL_PASSWORD", "JWT", "API_KEY", "PASSWORD")

_PRIVATE = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}KEY(?: BLOCK)?-----|\Z)", re.S
)
_URL = re.compile(r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{1,20}://([^\s/@:?#]{0,256}:[^\s/@]{1,256})@(?=[\w\[.-])", re.I)
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?", re.A)
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ANVA|A3T[A-Z0-9])[A-Z0-9]{16}(?![A-Za-z0-9])"
    r"|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{22,}|glpat-[\w-]{20,}"
    r"|xox[abeoprs]-[\w-]{10,}|sk-[\w-]{20,}|[rsp]k_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{40,}|SG\.[\w-]{16,}\.[\w-]{16,}"
    r"|\d{8,10}:[A-Za-z][\w-]{34}(?![\w-]))",
    re.A,
)
_NAMED = re.compile(
    r"(?:(?:api|access|account|secret|private|auth|client|aws)[_ -]{0,2}){1,3}(?:key|token|secret)(?:[_ -]?id)?"
    r"[\"']?(?: is)?\s{0,2}[:=]?\s{0,2}"
    r"[\"']?((?=[\w+/.=~-]*\d)(?=[\w+/.=~-]*[A-Za-z])[\w+/.=~-]{16,})"
    r"|\bbearer\s{1,2}((?=[\w.~+/-]*\d)[\w.~+/-]{16,}=*)",
    re.I | re.A,
)
_PASSWORD = re.compile(
    r"(?<![a-z])(?:passw(?:or)?d|passphrase|passwort|pwd|mot de passe|contraseña|密码)"
    r"[\"']?(?: is)?\s{0,2}(?:[:=]\s{0,2}|is\s)"
    r"[\"']?((?=\S{0,63}[\d!#$%^&*])[^\s\"'\[\]]{5,64})",
    re.I,
)

#: Each sort with what must stand in the text, in lower case.
_SORTS = (
    (_PRIVATE, "PRIVATE_KEY", ("private key",)),
    (_URL, "URL_PASSWORD", ("://",)),
    (_JWT, "JWT", ("eyj",)),
    (_KEY, "API_KEY", ("",)),
    (_NAMED, "API_KEY", ("key", "token", "secret", "bearer")),
    (_PASSWORD, "PASSWORD", ("passw", "passphrase", "pwd", "mot de passe", "contrase", "密码")),
)


def find(text: str) -> Iterator[Finding]:
    """Secrets in a plain text; findings may overlap."""
    lower = text.lower()
    for pattern, kind, words in _SORTS:
        if any(word in lower for word in words):
            for one in pattern.finditer(text):
                group = next((number for number in range(1, pattern.groups + 1) if one[number] is not None), 0)
                yield Finding(one.start(group), one.end(group), kind, one[group])
