"""Whether a unit is valid UCUM (https://ucum.org/ucum, version 2.1), so that FHIR may carry it as a code.

Covers the grammar without parentheses and the units met in health records; a valid unit missing here is only written
as text instead of as a code.
"""

from __future__ import annotations

import re
from functools import lru_cache

_PREFIXES = ("", "da", "d", "c", "m", "u", "n", "p", "f", "a", "h", "k", "M", "G", "T")
_METRIC = frozenset(
    """m g s L l mol eq osm U kat Pa bar J W V Hz N K Cel cal C A Bq Gy Sv Ci Ohm F S T rad lm lx t m[Hg] m[H2O]
    [iU] [IU] [arb'U]""".split()  # noqa: SIM905
)
_PLAIN = frozenset(
    """% min h d wk mo a deg 10* 10^ [pH] [degF] [lb_av] [oz_av] [in_i] [ft_i] [yd_i] [mi_i] [gr] [drp] [tsp_us]
    [tbs_us] [cup_us] [pt_us] [gal_us] [foz_us] [ppm] [ppb] [ppth] [HPF] [LPF] [CFU] [Cal] [MET] [diop] [p'diop] [U]
    [APL'U] [GPL'U] [MPL'U] [dye'U] [Ch] [BAU] [AU] [Amb'a'1'U] [EU] [PFU] [FFU] [bdsk'U] [ka'U] [knk'U] [USP'U]
    [mclg'U] [smgy'U] [tb'U] [CCID_50] [TCID_50] [EID_50] [D'ag'U] [Lf] [hnsf'U] [S] [car_Au] mo_j a_j Ang B st
    [mu_0] [g] atm""".split()  # noqa: SIM905
)
_NOT_UCUM = frozenset(("[U]",))
_COMPONENT = re.compile(r"(?P<factor>\d+)?(?P<atom>[A-Za-z%'\[\]_0-9]*?[A-Za-z%'\]_]|10[*^])?(?P<exponent>[+-]?\d+)?")
_ANNOTATION = re.compile(r"\{[!-z|~]*\}")


@lru_cache(maxsize=1 << 12)
def is_ucum(unit: str) -> bool:
    """Whether `unit` is a valid UCUM code.

    >>> [is_ucum(unit) for unit in ("mm[Hg]", "10*3/uL", "mL/min/{1.73_m2}", "{score}", "kg/m2", "/min")]
    [True, True, True, True, True, True]
    >>> [is_ucum(unit) for unit in ("(score)", "years", "mmHg", "", "mg//dL", "k/uL")]
    [False, False, False, False, False, False]
    """
    if not unit.isascii():
        return False
    components = re.split(r"[./](?![^{]*\})", unit.removeprefix("/"))
    return all(map(_is_component, components))


def _is_component(component: str) -> bool:
    bare, annotations = _ANNOTATION.subn("", component)
    if not bare:
        return annotations == 1
    match = _COMPONENT.fullmatch(bare)
    if match is None or annotations > 1:
        return False
    atom = match["atom"]
    if match["factor"]:
        return atom is None and match["exponent"] is None
    return atom is not None and _is_atom(atom)


def _is_atom(atom: str) -> bool:
    if atom in _NOT_UCUM:
        return False
    if atom in _PLAIN or atom in _METRIC:
        return True
    return any(atom.startswith(prefix) and atom[len(prefix) :] in _METRIC for prefix in _PREFIXES if prefix)
