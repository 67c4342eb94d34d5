"""Units of measure: common spellings to UCUM (https://ucum.org), the code system of units in FHIR."""

from __future__ import annotations

import re
from functools import lru_cache

UCUM_URI = "http://unitsofmeasure.org"

_UCUM_SPELLINGS = {
    "mmhg": "mm[Hg]",
    "mm hg": "mm[Hg]",
    "cmh2o": "cm[H2O]",
    "bpm": "/min",
    "beats/min": "/min",
    "breaths/min": "/min",
    "insp/min": "/min",
    "/minute": "/min",
    "°c": "Cel",
    "deg c": "Cel",
    "celsius": "Cel",
    "°f": "[degF]",
    "deg f": "[degF]",
    "fahrenheit": "[degF]",
    "iu": "[iU]",
    "units": "[U]",
    "unit": "[U]",
    "iu/l": "[iU]/L",
    "iu/ml": "[iU]/mL",
    "uiu/ml": "u[iU]/mL",
    "miu/l": "m[iU]/L",
    "miu/ml": "m[iU]/mL",
    "u/l": "U/L",
    "units/l": "U/L",
    "meq/l": "meq/L",
    "mmol/l": "mmol/L",
    "umol/l": "umol/L",
    "µmol/l": "umol/L",
    "nmol/l": "nmol/L",
    "pmol/l": "pmol/L",
    "mg/dl": "mg/dL",
    "g/dl": "g/dL",
    "ug/dl": "ug/dL",
    "mcg/dl": "ug/dL",
    "µg/dl": "ug/dL",
    "ng/ml": "ng/mL",
    "ng/dl": "ng/dL",
    "pg/ml": "pg/mL",
    "ug/ml": "ug/mL",
    "mcg/ml": "ug/mL",
    "ug/l": "ug/L",
    "ng/l": "ng/L",
    "g/l": "g/L",
    "mg/l": "mg/L",
    "mcg": "ug",
    "µg": "ug",
    "ml": "mL",
    "l": "L",
    "ml/min": "mL/min",
    "l/min": "L/min",
    "ml/hr": "mL/h",
    "ml/min/1.73m2": "mL/min/{1.73_m2}",
    "ml/min/{1.73_m2}": "mL/min/{1.73_m2}",
    "k/ul": "10*3/uL",
    "10*3/ul": "10*3/uL",
    "x10e3/ul": "10*3/uL",
    "thousand/ul": "10*3/uL",
    "k/mm3": "10*3/mm3",
    "m/ul": "10*6/uL",
    "10*6/ul": "10*6/uL",
    "x10e6/ul": "10*6/uL",
    "#/ul": "{#}/uL",
    "#/cu mm": "{#}/mm3",
    "fl": "fL",
    "kg/m^2": "kg/m2",
    "kg/m²": "kg/m2",
    "lbs": "[lb_av]",
    "lb": "[lb_av]",
    "inches": "[in_i]",
    "inch": "[in_i]",
    "in": "[in_i]",
    "sec": "s",
    "seconds": "s",
    "msec": "ms",
    "minutes": "min",
    "minute": "min",
    "hours": "h",
    "hour": "h",
    "hr": "h",
    "days": "d",
    "day": "d",
    "weeks": "wk",
    "months": "mo",
    "years": "a",
    "year": "a",
    "percent": "%",
    "ratio": "{ratio}",
    "score": "{score}",
    "index": "{index}",
    "mm/hr": "mm/h",
    "mosm/kg": "mosm/kg",
    "ph": "[pH]",
    "units (ph)": "[pH]",
    "ug/g": "ug/g",
    "pack years": "{pack-years}",
    "dose": "{dose}",
    "tablet": "{tbl}",
    "tab": "{tbl}",
    "cap": "{capsule}",
    "capsule": "{capsule}",
    "puff": "{puff}",
}
_FOLDED = {spelling.casefold(): unit for spelling, unit in _UCUM_SPELLINGS.items()}
"""By case-folded spelling, for which the micro sign and the Greek letter mu are one."""
_UCUM_SHAPE = re.compile(r"^(?:[A-Za-z%'*\d./()^+-]|\[[A-Za-z0-9_'/-]+\]|\{[^{}]*\})+$")


@lru_cache(maxsize=1 << 12)
def ucum(unit: str) -> str:
    """The UCUM spelling of a unit written in a common way; anything not recognised is returned stripped.

    >>> ucum("mmHg"), ucum("mg/dL"), ucum("K/uL"), ucum("{score}")
    ('mm[Hg]', 'mg/dL', '10*3/uL', '{score}')
    """
    stripped = unit.strip()
    return _FOLDED.get(stripped.casefold(), stripped)


def looks_like_ucum(unit: str) -> bool:
    """Whether `unit` has the shape of a UCUM code (no spaces; letters, digits, operators, [..] and {..})."""
    return bool(_UCUM_SHAPE.match(unit))
