"""Words for sex, race, ethnicity, marital status and language, as sources write them, to the codes of static events."""

from __future__ import annotations

import polars as pl

GENDERS = {"m": "male", "male": "male", "f": "female", "female": "female", "o": "other", "other": "other"}
RACES = {
    "white": "2106-3",
    "caucasian": "2106-3",
    "black": "2054-5",
    "black or african american": "2054-5",
    "black/african american": "2054-5",
    "african american": "2054-5",
    "asian": "2028-9",
    "native": "1002-5",
    "american indian or alaska native": "1002-5",
    "american indian/alaska native": "1002-5",
    "hawaiian": "2076-8",
    "native hawaiian or other pacific islander": "2076-8",
    "other": "2131-1",
    "other race": "2131-1",
}
"""Words to OMB categories (CDC Race & Ethnicity code set)."""
ETHNICITIES = {
    "hispanic": "2135-2",
    "hispanic or latino": "2135-2",
    "hispanic/latino": "2135-2",
    "nonhispanic": "2186-5",
    "non-hispanic": "2186-5",
    "not hispanic": "2186-5",
    "not hispanic or latino": "2186-5",
}
MARITAL_STATUSES = {
    "single": "S",
    "married": "M",
    "divorced": "D",
    "widowed": "W",
    "separated": "L",
    "legally separated": "L",
    "s": "S",
    "m": "M",
    "d": "D",
    "w": "W",
    "l": "L",
}
"""Words to v3-MaritalStatus."""
LANGUAGES = {
    "english": "en",
    "spanish": "es",
    "portuguese": "pt",
    "russian": "ru",
    "chinese": "zh",
    "haitian": "ht",
    "vietnamese": "vi",
    "italian": "it",
    "french": "fr",
    "german": "de",
    "greek": "el",
    "arabic": "ar",
    "korean": "ko",
    "japanese": "ja",
    "polish": "pl",
    "hindi": "hi",
    "bengali": "bn",
    "thai": "th",
    "persian": "fa",
    "khmer": "km",
    "amharic": "am",
    "somali": "so",
    "armenian": "hy",
    "american sign language": "ase",
}
"""Names of languages to BCP 47."""
_NO_ANSWERS = ["unknown", "unable to obtain", "patient declined to answer", "declined", "?", "none", "unspecified"]


def word_codes(words: pl.Expr, known: dict[str, str]) -> pl.Expr:
    """Codes of words: those `known` (in lower case), other words as they are, null where the word says "unknown"."""
    lower = words.str.strip_chars().str.to_lowercase()
    code = lower.replace_strict(known, default=None, return_dtype=pl.String)
    return pl.when(~lower.is_in(_NO_ANSWERS)).then(pl.coalesce(code, words))


def static(rows: pl.DataFrame, prefix: str, code: pl.Expr) -> pl.DataFrame:
    """Events without a time, one a row of `rows` (with `subject_id`) that has a code."""
    events = rows.select("subject_id", time=pl.lit(None, pl.Datetime("us")), code=pl.lit(f"{prefix}//") + code)
    return events.drop_nulls("code")
