"""Check digits of national identifiers, so that invented ones pass where real ones do."""

from __future__ import annotations

_DOUBLED = str.maketrans("0123456789", "0246813579")
"""The sums of the digits of twice each digit."""


def luhn(digits: str) -> int:
    """The check digit that ISO/IEC 7812-1 appends to a number; providers of the US have it over 80840 and theirs (CMS).

    >>> luhn("80840" + "123456789")
    3
    """
    return -(sum(map(int, digits[::-2].translate(_DOUBLED))) + sum(map(int, digits[-2::-2]))) % 10


def modulus_11(digits: str) -> int:
    """The check digit of the nine digits of an NHS number; 10 if there is none (NHS Data Dictionary, NHS NUMBER).

    >>> modulus_11("943476591")
    9
    """
    return -sum(weight * int(digit) for weight, digit in zip(range(10, 1, -1), digits, strict=True)) % 11


def insured_person(value: str) -> int:
    """The check digit of the letter and eight digits of a Krankenversichertennummer (§ 290 SGB V, annex 1).

    The letter counts as its two-digit place in the alphabet; the sums of digits of the products with 1, 2, 1, 2 … are
    added up.

    >>> insured_person("A00050001")
    5
    """
    digits = f"{ord(value[0]) - ord('A') + 1:02d}{value[1:]}"
    return (sum(map(int, digits[::2])) + sum(map(int, digits[1::2].translate(_DOUBLED)))) % 10
