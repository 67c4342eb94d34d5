"""The countries that people and places can be of, by the name that `export_fhir` and `--locale` take.

A locale is a file of this folder, which is data, and a line in `LOCALES`; docs/add-a-locale.md shows how to write one.
"""

from ehrsim.fhir.locales.de import GERMANY
from ehrsim.fhir.locales.fr import FRANCE
from ehrsim.fhir.locales.gb import UNITED_KINGDOM
from ehrsim.fhir.locales.locale import City, Locale, NationalNumber, NumberRange
from ehrsim.fhir.locales.us import UNITED_STATES

LOCALES: dict[str, Locale] = {
    "us": UNITED_STATES,
    "gb": UNITED_KINGDOM,
    "de": GERMANY,
    "fr": FRANCE,
}

__all__ = ["LOCALES", "City", "Locale", "NationalNumber", "NumberRange"]
