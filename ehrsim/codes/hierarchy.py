"""Parents of codes: ICD categories and chapters by rule, so that rare codes can roll up to something broader.

Chapter ranges are those of the ICD-10-CM and ICD-9-CM tabular lists (CMS/NCHS, public domain).
"""

from __future__ import annotations

from functools import lru_cache

from ehrsim.codes.systems import join, parse

_ICD10_CHAPTERS = (
    ("A00", "B99", "Certain infectious and parasitic diseases"),
    ("C00", "D49", "Neoplasms"),
    ("D50", "D89", "Diseases of the blood and blood-forming organs and certain immune disorders"),
    ("E00", "E89", "Endocrine, nutritional and metabolic diseases"),
    ("F01", "F99", "Mental, behavioral and neurodevelopmental disorders"),
    ("G00", "G99", "Diseases of the nervous system"),
    ("H00", "H59", "Diseases of the eye and adnexa"),
    ("H60", "H95", "Diseases of the ear and mastoid process"),
    ("I00", "I99", "Diseases of the circulatory system"),
    ("J00", "J99", "Diseases of the respiratory system"),
    ("K00", "K95", "Diseases of the digestive system"),
    ("L00", "L99", "Diseases of the skin and subcutaneous tissue"),
    ("M00", "M99", "Diseases of the musculoskeletal system and connective tissue"),
    ("N00", "N99", "Diseases of the genitourinary system"),
    ("O00", "O9A", "Pregnancy, childbirth and the puerperium"),
    ("P00", "P96", "Certain conditions originating in the perinatal period"),
    ("Q00", "Q99", "Congenital malformations, deformations and chromosomal abnormalities"),
    ("R00", "R99", "Symptoms, signs and abnormal clinical and laboratory findings"),
    ("S00", "T88", "Injury, poisoning and certain other consequences of external causes"),
    ("U00", "U85", "Codes for special purposes"),
    ("V00", "Y99", "External causes of morbidity"),
    ("Z00", "Z99", "Factors influencing health status and contact with health services"),
)
_ICD9_CHAPTERS = (
    ("001", "139", "Infectious and parasitic diseases"),
    ("140", "239", "Neoplasms"),
    ("240", "279", "Endocrine, nutritional and metabolic diseases, and immunity disorders"),
    ("280", "289", "Diseases of the blood and blood-forming organs"),
    ("290", "319", "Mental disorders"),
    ("320", "389", "Diseases of the nervous system and sense organs"),
    ("390", "459", "Diseases of the circulatory system"),
    ("460", "519", "Diseases of the respiratory system"),
    ("520", "579", "Diseases of the digestive system"),
    ("580", "629", "Diseases of the genitourinary system"),
    ("630", "679", "Complications of pregnancy, childbirth, and the puerperium"),
    ("680", "709", "Diseases of the skin and subcutaneous tissue"),
    ("710", "739", "Diseases of the musculoskeletal system and connective tissue"),
    ("740", "759", "Congenital anomalies"),
    ("760", "779", "Certain conditions originating in the perinatal period"),
    ("780", "799", "Symptoms, signs, and ill-defined conditions"),
    ("800", "999", "Injury and poisoning"),
    ("E000", "E999", "External causes of injury and poisoning"),
    ("V01", "V91", "Factors influencing health status and contact with health services"),
)


@lru_cache(maxsize=1 << 16)
def parents(code: str) -> tuple[str, ...]:
    """The ancestors of a code that follow from the code itself, nearest first; empty where there are none.

    ICD codes drop one character at a time to their three-character category, then go to the chapter range.

    >>> parents("ICD10CM//E11.22")
    ('ICD10CM//E11.2', 'ICD10CM//E11', 'ICD10CM//E00-E89')
    >>> parents("ICD9CM//250.02")
    ('ICD9CM//250.0', 'ICD9CM//250', 'ICD9CM//240-279')
    >>> parents("LOINC//4548-4")
    ()
    """
    kind, system, value = parse(code)
    if system not in ("ICD10CM", "ICD10", "ICD9CM") or "-" in value:
        return ()
    category_length = 4 if system == "ICD9CM" and value[:1] == "E" else 3
    plain = value.replace(".", "")
    ancestors = []
    for length in range(len(plain) - 1, category_length - 1, -1):
        shorter = plain[:length]
        dotted = shorter if length == category_length else f"{shorter[:category_length]}.{shorter[category_length:]}"
        ancestors.append(dotted if "." in value else shorter)
    chapter = _chapter(system, plain[:category_length])
    if chapter is not None:
        ancestors.append(chapter)
    return tuple(join(kind, system, ancestor) for ancestor in ancestors)


def chapter_title(code: str) -> str | None:
    """The title of an ICD chapter range such as `ICD10CM//E00-E89`, None for any other code."""
    _, system, value = parse(code)
    chapters = _ICD9_CHAPTERS if system == "ICD9CM" else _ICD10_CHAPTERS
    return next((title for first, last, title in chapters if value == f"{first}-{last}"), None)


def _chapter(system: str, category: str) -> str | None:
    chapters = _ICD9_CHAPTERS if system == "ICD9CM" else _ICD10_CHAPTERS
    for first, last, _ in chapters:
        if len(category) == len(first) and first <= category <= last:
            return f"{first}-{last}"
    return None
