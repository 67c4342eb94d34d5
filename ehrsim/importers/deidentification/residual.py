"""The last look: texts of a de-identified result that look like identifiers, by the 18 kinds of HIPAA's Safe Harbor.

It is not what de-identifies, but what tells that a policy lets through more than was meant. Codes and coded answers
whose shape is known are not looked at: the allow-list has judged every character of them.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from itertools import pairwise

import msgspec
import polars as pl

from ehrsim.errors import InputError
from ehrsim.importers.deidentification.allowed import AllowList

_MONTHS = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_NUMBERED = r"(?:no|nr|num|number|id|#)?\.?\s*[:#=]?\s*"

_STREETS = "street|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|dr|court|ct|way|place|pl"
_YEAR, _DAY = r"(?:19|20)\d\d", r"(?:0?[1-9]|[12]\d|3[01])"

SIGNS: dict[str, tuple[str, ...]] = {
    "a UUID or hash": (
        r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b",
        r"\b(?=[0-9a-f]*\d)[0-9a-f]{24,}\b",
    ),
    "a hardware address": (r"\b(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}\b",),
    "an account number": (
        r"\b[A-Z]{2}\d{2}(?:\s?[A-Z0-9]{4}){3,7}\s?[A-Z0-9]{0,3}\b",
        r"(?<!\d)(?:\d[ -]?){13,19}(?!\d)",
    ),
    "an e-mail address": (r"[\w.+-]+\s?@\s?[\w-]+\.[\w.-]+",),
    "a web address": (
        r"(?:https?|ftp|file)://|\bwww\.\S",
        r"\b[\w-]+\.(?:com|org|net|edu|gov|info|health)\b",
    ),
    "an IP address": (
        r"\b(?:\d{1,3}\.){3}\d{1,3}\b",
        r"\b(?:[0-9a-f]{1,4}:){3,7}[0-9a-f]{0,4}\b|::[0-9a-f]{1,4}\b",
    ),
    "a social security number": (r"(?<!\d)\d{3}[- ]\d{2}[- ]\d{4}(?!\d)", r"\bSSN\b"),
    "a telephone or fax number": (
        r"(?<![\d-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,4}\)\s?|\d{2,4}[ .-])\d{3,4}[ .-]\d{3,4}(?!\d)",
        r"\+\d{8,15}(?!\d)",
        r"\b(?:tel|phone|fax|mobile|cell)\b\.?\s*[:#]?\s*\+?\d",
    ),
    "a date": (
        rf"(?<!\d){_YEAR}[-/.]{_DAY}[-/.]{_DAY}(?!\d)",
        rf"(?<!\d){_DAY}[-/.]{_DAY}[-/.](?:\d{{2}}|{_YEAR})(?!\d)",
        rf"\b{_MONTHS},?\s+\d{{1,4}}(?:st|nd|rd|th)?\b",
        rf"(?<!\d)\d{{1,2}}(?:st|nd|rd|th)?[-. ]+{_MONTHS}[-, ]*\d{{2,4}}(?!\d)",
        rf"(?<!\d){_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?!\d)",
    ),
    "an age over 89": (r"\b(?:9\d|1[0-3]\d)[ -]?(?:y/?o\b|yrs?\b|years?\b)", r"\baged?\s+(?:9\d|1[0-3]\d)\b"),
    "a record, plan or account number": (
        r"\b(?:MRN|MR|PID|acct|account|policy|member|subscriber|beneficiary|medicare|medicaid|insurance|claim|invoice|"
        rf"case|visit|encounter|specimen|accession|order)\s*{_NUMBERED}(?=\w*\d)\w{{4,}}",
    ),
    "a licence, certificate or passport number": (
        rf"\b(?:licen[cs]e|certificate|cert|DEA|NPI|passport|permit|DL)\s*{_NUMBERED}(?=\w*\d)\w{{5,}}",
    ),
    "a vehicle or its plate": (
        r"\b(?=\w*\d)(?=\w*[A-HJ-NPR-Z])[A-HJ-NPR-Z0-9]{17}\b",
        r"\b(?:VIN|[Pp]late)\b",
    ),
    "a device's serial number": (
        r"\(01\)\d{14}",
        rf"\b(?:serial|SN|S/N|UDI|lot|device)\s*{_NUMBERED}(?=[\w-]*\d)[\w-]{{5,}}",
    ),
    "a long number": (r"(?<![\d.])\d{7,}(?![\d.])",),
    "a ZIP code or street": (
        r"(?<!\d)\d{5}-\d{4}(?!\d)|\b[A-Z]{2}\s\d{5}\b",
        rf"\b\d{{1,5}}\s+(?:\w+\s){{1,3}}(?:{_STREETS})\b|\bP\.?\s?O\.?\s?Box\b",
    ),
    "a reference to a record": (r"\b(?:Patient|Practitioner|RelatedPerson|Person|Encounter)/[\w.-]+",),
    "a picture, recording or fingerprint": (
        r"data:\w+/|\.(?:jpe?g|png|gif|tiff?|bmp|dcm|heic|mp4|wav)\b",
        r"\b(?:photo|fingerprint|retina scan|voice ?print|faceprint)\b",
    ),
    "embedded data": (r"[A-Za-z0-9+/]{40,}={0,2}",),
    "a name with a title": (
        r"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Rev|Sr|Herr|Frau|Mme)\b\.?\s+[A-Z][\w'-]+",
        r"\b[A-Z][\w'-]+,?\s+(?:MD|RN|PhD|DO|NP)\b",
    ),
}
"""What each kind of identifier looks like, the narrower kinds first. Upper and lower case are one, but for `_CASED`."""
_CASED = ("a name with a title", "a vehicle or its plate", "an account number")
_LETTERS = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")


class _Names(msgspec.Struct, forbid_unknown_fields=True):
    given: list[str]
    family: list[str]


class IdentifierFound(InputError):
    """A de-identified result that still holds what looks like an identifier; the message says which kind, and where."""


@cache
def _names() -> _Names:
    return msgspec.toml.decode(files(__package__).joinpath("names.toml").read_bytes(), type=_Names)


class Scan:
    """Looks at texts and counts what it has seen; finding anything is an error."""

    def __init__(self, allowed: AllowList) -> None:
        self._allowed = allowed
        self._signs = {
            what: re.compile("|".join(signs), 0 if what in _CASED else re.IGNORECASE) for what, signs in SIGNS.items()
        }
        names = _names()
        self._given, self._family = frozenset(names.given), frozenset(names.family)
        self.texts = 0

    def looks_like(self, text: str) -> str | None:
        """What identifier a text looks like it holds, None for none."""
        found = next((what for what, sign in self._signs.items() if sign.search(text)), None)
        return found or ("a name" if self._has_name(text) else None)

    def _has_name(self, text: str) -> bool:
        """Whether a common given name stands beside a common family name, in either order."""
        words = [word.casefold() for word in _LETTERS.findall(text)]
        near = [*pairwise(words), *zip(words, words[2:], strict=False)]
        return any(
            (one in self._given and other in self._family) or (other in self._given and one in self._family)
            for one, other in near
        )

    def check(self, events: pl.DataFrame) -> None:
        """Raise `IdentifierFound` where a text of events looks like an identifier; the message does not hold it."""
        for column in ("code", "text_value", "unit"):
            texts = [text for text in events[column].drop_nulls().unique() if not self._is_known(column, text)]
            self.texts += len(texts)
            found = {text: kind for text in texts if (kind := self.looks_like(text)) is not None}
            if found:
                kinds = ", ".join(sorted(set(found.values())))
                raise IdentifierFound(
                    f"de-identification left {len(found):,} texts in column {column} that look like {kinds}"
                    + self._beside(events.filter(pl.col(column).is_in(list(found)))["code"]),
                    hint="nothing was written; take back what the policy allows beyond the built-in lists",
                )

    def _beside(self, codes: pl.Series) -> str:
        """The first code of these that may be told."""
        told = sorted(code for code in codes.unique() if self._allowed.is_trusted(code))
        return f", the first with code {told[0]}" if told else ""

    def _is_known(self, column: str, text: str) -> bool:
        return text in self._allowed.units if column == "unit" else self._allowed.is_trusted(text)
