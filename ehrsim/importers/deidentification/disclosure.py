"""How alike the patients of a de-identified result are: k-anonymity, l-diversity, LKC-privacy; measured, not enforced.

Sources: Sweeney 2002 (k-anonymity), Machanavajjhala et al. 2007 (distinct l-diversity), Mohammed, Fung, Hung and Lee
2009 (LKC-privacy: whoever knows at most L codes of a patient, and what the patient is, faces at least K alike, of whom
no share above C has a sensitive code).
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from ehrsim import codes
from ehrsim.importers.deidentification.allowed import ZIP_SYSTEM
from ehrsim.importers.deidentification.policy import Risk

AGE_BAND = 5
"""Years of a band of ages at the first event; the last band is 90 and over."""
LARGEST_SAMPLE = 20_000
"""Patients whose codes are kept for l-diversity and LKC-privacy; fewer alike are found among them than in all."""
TARGETS = 2_000
"""Patients whose codes an attacker is taken to know, drawn from the sample."""
KNOWN_KINDS = frozenset(("condition", "procedure", "medication", "immunization", "allergy"))
"""Kinds of codes that somebody may know of somebody else."""
QUASI_IDENTIFIERS = ("sex", "age_band", "race", "ethnicity", "zip3", "first_year")
_SETS = (
    ("sex", "age_band"),
    ("sex", "age_band", "race"),
    ("sex", "age_band", "race", "ethnicity", "first_year"),
    QUASI_IDENTIFIERS,
)
_PREFIXES = {"sex": "GENDER//", "race": "RACE//", "ethnicity": "ETHNICITY//", "zip3": f"{ZIP_SYSTEM}//"}


class Likeness(msgspec.Struct):
    """How many patients share what is publicly known of each: one line of the k-anonymity table."""

    known: list[str]
    classes: int
    """Groups of patients who are alike in all that is known."""
    k: int
    """Patients in the smallest group."""
    unique: int
    """Patients who are alone in theirs."""
    in_small_classes: int
    """Patients in groups smaller than the policy's k."""
    l: int  # noqa: E741
    """Fewest distinct conditions among the patients of a group, within the sample."""


class Knowledge(msgspec.Struct):
    """What an attacker meets who knows sex, age band, race and some codes of a patient: a line of the LKC table."""

    known_codes: int
    targets: int
    in_small_groups: float
    """Share of targets whose group, of patients in the sample who have the codes too, is smaller than k."""
    median_group: float
    sensitive_told: float
    """Share of targets of whose group more than the policy's share has one same sensitive code not known before."""


class Disclosure:
    """Gathers what the tables need, part by part of whole subjects, and makes them."""

    def __init__(self, risk: Risk, seed: int) -> None:
        self._risk, self._seed = risk, seed
        self._people: list[pl.DataFrame] = []
        self._codes = pl.DataFrame(schema={"subject_id": pl.Int64, "code": pl.String})

    def add(self, events: pl.DataFrame) -> None:
        """Note the quasi-identifiers of the subjects of a part, and the codes of those in the sample.

        The sample is of the lowest subject ids, which are random.
        """
        self._people.append(_people(events))
        is_known = [code for code in events["code"].unique() if codes.parse(code).kind in KNOWN_KINDS]
        pairs = events.filter(pl.col("code").is_in(is_known)).select("subject_id", "code").unique()
        together = pl.concat([self._codes, pairs])
        lowest = together["subject_id"].unique().sort().head(LARGEST_SAMPLE)
        self._codes = together.filter(pl.col("subject_id") <= lowest[-1]) if len(lowest) else together

    def likeness(self) -> list[Likeness]:
        """The table of k-anonymity and l-diversity."""
        people = self._everybody()
        return [self._alike(people, list(known)) for known in _SETS if people.height]

    def _everybody(self) -> pl.DataFrame:
        return pl.concat(self._people) if self._people else pl.DataFrame(schema=_people_schema())

    def _alike(self, people: pl.DataFrame, known: list[str]) -> Likeness:
        groups = people.group_by(known).agg(size=pl.len(), subject_id="subject_id")
        size = groups["size"]
        conditions = [code for code in self._codes["code"].unique() if codes.parse(code).kind == "condition"]
        sick = self._codes.filter(pl.col("code").is_in(conditions))
        members = groups.with_row_index("group").explode("subject_id").select("group", "subject_id")
        distinct = members.join(sick, on="subject_id").group_by("group").agg(pl.col("code").n_unique())["code"]
        least = distinct.min() if len(distinct) == groups.height else 0
        return Likeness(
            known=known,
            classes=groups.height,
            k=_integer(size.min()),
            unique=int((size == 1).sum()),
            in_small_classes=int(size.filter(size < self._risk.k).sum()),
            l=_integer(least),
        )

    def knowledge(self) -> list[Knowledge]:
        """The table of LKC-privacy, for none to the policy's number of known codes."""
        people = self._everybody().filter(pl.col("subject_id").is_in(self._codes["subject_id"].unique().implode()))
        if people.is_empty():
            return []
        people = people.sort("subject_id")
        classes = people.select(pl.struct("sex", "age_band", "race").rank("dense")).to_series().to_numpy()
        table = _Incidence(self._codes, people["subject_id"], self._risk.sensitive)
        generator = np.random.Generator(np.random.Philox(key=self._seed))
        targets = np.sort(generator.permutation(people.height)[:TARGETS])
        orders = [generator.permutation(table.codes_of(int(target))) for target in targets]
        return [self._known(known, targets, orders, classes, table) for known in range(self._risk.known_codes + 1)]

    def _known(
        self,
        known: int,
        targets: npt.NDArray[np.intp],
        orders: list[npt.NDArray[np.int64]],
        classes: npt.NDArray[np.int64],
        table: _Incidence,
    ) -> Knowledge:
        sizes, told = [], 0
        for target, order in zip(targets, orders, strict=True):
            chosen = order[:known]
            group = table.patients_with(chosen, np.flatnonzero(classes == classes[target]))
            sizes.append(len(group))
            told += table.largest_sensitive_share(group, chosen) > self._risk.confidence
        group_sizes = np.array(sizes)
        return Knowledge(
            known_codes=known,
            targets=len(targets),
            in_small_groups=round(float((group_sizes < self._risk.k).mean()), 4),
            median_group=float(np.median(group_sizes)),
            sensitive_told=round(told / len(targets), 4),
        )


class _Incidence:
    """Which patient of the sample has which code, both by their place, as sorted lists either way."""

    def __init__(self, pairs: pl.DataFrame, subjects: pl.Series, sensitive: tuple[str, ...]) -> None:
        names = pairs["code"].unique().sort()
        places = pairs.select(
            patient=pl.col("subject_id").replace_strict(subjects, pl.int_range(len(subjects), eager=True)),
            code=pl.col("code").replace_strict(names, pl.int_range(len(names), eager=True)),
        )
        self._patients = _lists(places.sort("code", "patient"), "code", "patient", len(names))
        self._codes = _lists(places.sort("patient", "code"), "patient", "code", len(subjects))
        self._sensitive = [
            place for place, name in enumerate(names) if any(name.startswith(start) for start in sensitive)
        ]

    def codes_of(self, patient: int) -> npt.NDArray[np.int64]:
        return self._codes[patient]

    def patients_with(self, chosen: npt.NDArray[np.int64], among: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        for code in chosen:
            among = np.intersect1d(among, self._patients[code], assume_unique=True)
        return among

    def largest_sensitive_share(self, group: npt.NDArray[np.intp], known: npt.NDArray[np.int64]) -> float:
        """The largest share of a group that one sensitive code, not known already, has."""
        unknown = [code for code in self._sensitive if code not in known]
        counts = [len(np.intersect1d(group, self._patients[code], assume_unique=True)) for code in unknown]
        return max(counts, default=0) / max(len(group), 1)


def _lists(places: pl.DataFrame, by: str, values: str, number: int) -> list[npt.NDArray[np.int64]]:
    ends = np.cumsum(np.bincount(places[by].to_numpy(), minlength=number))
    return np.split(places[values].to_numpy(), ends[:-1])


def _people_schema() -> dict[str, pl.DataType]:
    texts = dict.fromkeys(("sex", "race", "ethnicity", "zip3"), pl.String())
    return {"subject_id": pl.Int64(), "age_band": pl.Int32(), **texts, "first_year": pl.Int32()}


def _people(events: pl.DataFrame) -> pl.DataFrame:
    """A row a subject with its quasi-identifiers, null where one is not known."""
    birth, time = pl.col("code") == codes.BIRTH, pl.col("time")
    facts = {
        name: pl.col("code").filter(pl.col("code").str.starts_with(prefix)).min() for name, prefix in _PREFIXES.items()
    }
    people = events.group_by("subject_id").agg(**facts, born=time.filter(birth).min(), first=time.filter(~birth).min())
    age = (pl.col("first") - pl.col("born")).dt.total_days() / 365.25
    return people.select(
        "subject_id",
        age_band=(age // AGE_BAND * AGE_BAND).cast(pl.Int32),
        **{name: pl.col(name) for name in _PREFIXES},
        first_year=pl.coalesce("first", "born").dt.year().cast(pl.Int32),
    )


def _integer(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0
