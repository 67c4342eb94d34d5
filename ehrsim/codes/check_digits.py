"""Check digits of codes: what tells a misspelt one."""

from __future__ import annotations

_TIMES = (
    "0123456789",
    "1234067895",
    "2340178956",
    "3401289567",
    "4012395678",
    "5987604321",
    "6598710432",
    "7659821043",
    "8765932104",
    "9876543210",
)
"""The multiplication table of the dihedral group D5, by Verhoeff."""
_PERMUTED = (
    "0123456789",
    "1576283094",
    "5803796142",
    "8916043527",
    "9453126870",
    "4286573901",
    "2793806415",
    "7046913258",
)


def verhoeff(digits: str) -> bool:
    """Whether the last of some digits is their check digit by Verhoeff (1969), as in SNOMED CT identifiers.

    >>> verhoeff("44054006"), verhoeff("44054007")
    (True, False)
    """
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = int(_TIMES[check][int(_PERMUTED[place % 8][int(digit)])])
    return check == 0


def mod_10(body: str, check: str) -> bool:
    """Whether a digit is the check digit of others (LOINC Users' Guide, Mod 10).

    >>> mod_10("4548", "4"), mod_10("4548", "5")
    (True, False)
    """
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in body[::-2])
    return (doubled + sum(int(digit) for digit in body[-2::-2]) + int(check)) % 10 == 0
