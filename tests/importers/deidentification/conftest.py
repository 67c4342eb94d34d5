"""Identifiers of all 18 kinds of HIPAA's Safe Harbor, and a search for them in everything an import leaves or says.

Nothing here knows how identifiers are taken out: they are made from a seed, and looked for byte by byte in the files,
in every column of their tables and in captured output, as written and as they would look rewritten.
"""

import random
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

EACH = 17
"""Identifiers of each of the 18 kinds: 306 in all."""
_SYLLABLES = [
    "quor",
    "zel",
    "vath",
    "mir",
    "brax",
    "thorn",
    "wyk",
    "plim",
    "drov",
    "jaxe",
    "nuzz",
    "skel",
    "vorth",
    "grym",
]


class Identifier(NamedTuple):
    """Something that identifies somebody: its kind, its text, and what to look for to find it in any guise."""

    kind: str
    text: str
    needles: tuple[str, ...]
    digits: str
    """Its digits where they are seven or more, for columns of numbers; empty if they are fewer."""


def _word(rng: random.Random) -> str:
    return "".join(rng.sample(_SYLLABLES, 3))


def _digits(rng: random.Random, number: int) -> str:
    return str(rng.randint(1, 9)) + "".join(str(rng.randint(0, 9)) for _ in range(number - 1))


def _letters(rng: random.Random, number: int) -> str:
    return "".join(rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(number))


def _hexadecimal(rng: random.Random, number: int) -> str:
    return "".join(rng.choice("0123456789abcdef") for _ in range(number))


def _name(rng: random.Random) -> str:
    return f"{_word(rng).capitalize()} {_word(rng).capitalize()}"


def _address(rng: random.Random) -> str:
    return (
        f"{rng.randint(100, 999)} {_word(rng).capitalize()} Lane, {_word(rng).capitalize()}ville, NV {_digits(rng, 5)}"
    )


def _moment(rng: random.Random) -> str:
    start = datetime(1960, 1, 1)
    return (start + timedelta(seconds=rng.randrange(60 * 365 * 86_400))).isoformat()


def _phone(rng: random.Random) -> str:
    return f"({_digits(rng, 3)}) {_digits(rng, 3)}-{_digits(rng, 4)}"


def _address_of_network(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return ".".join(str(rng.randint(101, 254)) for _ in range(4))
    return ":".join(_hexadecimal(rng, 4) for _ in range(8))


_KINDS: dict[str, Callable[[random.Random], str]] = {
    "A names": _name,
    "B places": _address,
    "C dates": _moment,
    "D telephone numbers": _phone,
    "E fax numbers": lambda rng: f"+1-{_digits(rng, 3)}-{_digits(rng, 3)}-{_digits(rng, 4)}",
    "F e-mail addresses": lambda rng: f"{_word(rng)}.{_word(rng)}@{_word(rng)}.org",
    "G social security numbers": lambda rng: f"{_digits(rng, 3)}-{_digits(rng, 2)}-{_digits(rng, 4)}",
    "H medical record numbers": lambda rng: _digits(rng, 8),
    "I health plan numbers": lambda rng: f"{_letters(rng, 1)}{_digits(rng, 3)}-{_digits(rng, 3)}-{_digits(rng, 4)}",
    "J account numbers": lambda rng: _digits(rng, 16),
    "K certificate and licence numbers": lambda rng: f"{_letters(rng, 2)}{_digits(rng, 7)}",
    "L vehicles": lambda rng: f"{_digits(rng, 1)}{_letters(rng, 5)}{_digits(rng, 11)}",
    "M devices": lambda rng: f"(01){_digits(rng, 14)}(21){_letters(rng, 3)}{_digits(rng, 6)}",
    "N web addresses": lambda rng: f"https://{_word(rng)}.example.org/{_word(rng)}/{_digits(rng, 6)}",
    "O IP addresses": _address_of_network,
    "P biometric identifiers": lambda rng: f"FMR-{_hexadecimal(rng, 40)}",
    "Q photographs": lambda rng: f"{_word(rng)}-{_digits(rng, 5)}.jpg",
    "R other unique codes": lambda rng: f"TRIAL-{_letters(rng, 3)}-{_digits(rng, 6)}",
}


def make_identifiers(seed: int, each: int = EACH) -> list[Identifier]:
    """`each` identifiers of every kind."""
    rng = random.Random(seed)
    return [_identifier(kind, make(rng)) for kind, make in _KINDS.items() for _ in range(each)]


def _identifier(kind: str, text: str) -> Identifier:
    digits = re.sub(r"\D", "", text)
    return Identifier(kind, text, tuple(dict.fromkeys(_guises(kind, text))), digits if len(digits) >= 7 else "")


def _guises(kind: str, text: str) -> Iterable[str]:
    """What of an identifier, and in which writing, must not be found; in lower case."""
    yield text.lower()
    bare = re.sub(r"[^0-9a-z]", "", text.lower())
    if len(bare) >= 7:
        yield bare
    if kind.startswith(("A", "B", "F", "N", "Q")):
        yield from (word for word in re.findall(r"[a-z]{8,}", text.lower()))
    if kind.startswith("B"):
        yield text[-5:]
    if kind.startswith("C"):
        moment = datetime.fromisoformat(text)
        yield from (moment.strftime(form).lower() for form in _DATE_FORMS)
        yield str(int((moment - datetime(1970, 1, 1)).total_seconds()))


_DATE_FORMS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y%m%d%H%M%S",
    "%m/%d/%Y",
    "%d.%m.%Y",
    "%d-%b-%Y",
    "%d %B %Y",
    "%B %d, %Y",
    "%Y/%m/%d",
)


class Trace(NamedTuple):
    """Everything an import left and said, as texts by their place."""

    texts: dict[str, str]
    numbers: list[float]

    def find(self, identifiers: Iterable[Identifier]) -> list[tuple[str, str, str]]:
        """(kind, what was found, where) of every identifier that is in any text or among the numbers."""
        found = []
        for identifier in identifiers:
            for place, text in self.texts.items():
                hits = [needle for needle in identifier.needles if _holds(text, needle)]
                found += [(identifier.kind, hit, place) for hit in hits]
            if identifier.digits and len(identifier.digits) <= 15:
                number = float(identifier.digits)
                if any(abs(value - number) <= number * 1e-6 for value in self.numbers):
                    found.append((identifier.kind, identifier.digits, "numbers"))
        return found


def _holds(text: str, needle: str) -> bool:
    """Whether a text holds a needle; one of five digits only where it stands alone and is no count of JSON."""
    if needle not in text:
        return False
    return len(needle) > 5 or re.search(rf"(?<![\d.])(?<!\": ){re.escape(needle)}(?![\d.])", text) is not None


def trace(folder: Path, *said: str) -> Trace:
    """Everything in the files of a folder, its tables column by column, and what was said."""
    texts = {f"said {number}": text.lower() for number, text in enumerate(said)}
    numbers: set[float] = set()
    for path in sorted(folder.rglob("*")):
        texts[f"name of {path.name}"] = str(path.relative_to(folder)).lower()
        if not path.is_file():
            continue
        texts[f"bytes of {path.name}"] = path.read_bytes().decode("latin-1").lower()
        if path.suffix == ".parquet":
            for column in pl.read_parquet(path).get_columns():
                texts[f"{path} {column.name}"] = "\n".join(_as_texts(column)).lower()
                if column.dtype.is_numeric():
                    numbers |= {value for value in column.drop_nulls().to_list() if abs(value) >= 1e6}
    return Trace(texts, sorted(numbers))


def _as_texts(column: pl.Series) -> list[str]:
    unique = column.drop_nulls().unique()
    if column.dtype == pl.Datetime:
        return [moment.strftime(form) for moment in unique for form in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S")]
    return [str(value) for value in unique.to_list()]


@pytest.fixture(scope="session")
def identifiers() -> list[Identifier]:
    """The seeded identifiers."""
    return make_identifiers(seed=7)


@pytest.fixture(scope="session")
def more_identifiers() -> Callable[[int, int], list[Identifier]]:
    """A function from a seed and a number of each kind to identifiers."""
    return make_identifiers


@pytest.fixture(scope="session")
def search() -> Callable[..., Trace]:
    """A function from a folder, and texts that were said, to all that can be searched in them."""
    return trace
