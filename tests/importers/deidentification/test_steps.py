"""The steps of a de-identification one by one: lists, ids, times, ages, rare codes, the last look, risk, options."""

from datetime import date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrsim import cli, codes, events
from ehrsim.errors import InputError, UsageError
from ehrsim.importers import IMPORTERS, import_events
from ehrsim.importers.deidentification import Policy, load_policy
from ehrsim.importers.deidentification.allowed import AllowList, built_in
from ehrsim.importers.deidentification.policy import Allow, Deny, Risk, Times
from ehrsim.importers.deidentification.rare import PatientCounts
from ehrsim.importers.deidentification.residual import SIGNS, Scan

SEX, END = "GENDER//female", codes.OBSERVATION_END
DIABETES, GLUCOSE = "ICD10CM//E11.9", "LOINC//2345-7"


def row(subject, time, code, **more):
    return {"subject_id": subject, "time": time, "code": code} | more


def life(subject, *, born=datetime(1960, 5, 6, 7, 8), first=datetime(2015, 3, 4, 10), days=(0, 30, 400), **more):
    """A record of somebody with what everybody has."""
    yield row(subject, None, SEX)
    yield row(subject, born, codes.BIRTH)
    for place, day in enumerate(days):
        yield row(subject, first + timedelta(days=day), DIABETES, visit_id=subject * 1000 + 7 * place, **more)


def everybody(number=20, **more):
    return [entry for subject in range(1, number + 1) for entry in life(subject, **more)]


@pytest.fixture
def deidentify(tmp_path):
    """A function from rows and a policy to (sorted events, report)."""
    tries = []

    def run(rows, policy=None, **options):
        tries.append(rows)
        frame = events.conform(pl.DataFrame(rows, infer_schema_length=None))
        path, out = tmp_path / f"{len(tries)}.parquet", tmp_path / f"out{len(tries)}"
        frame.write_parquet(path)
        options = {"seed": 1} | options
        report = import_events(path, out, deidentify=policy or Policy(), **options)
        return events.sort(events.read_events(out)).collect(), report.deidentification

    return run


# What is kept


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        ("SNOMED//44054006", True),
        ("SNOMED//44054007", False),  # wrong check digit
        ("SNOMED//123456789", False),
        ("PROCEDURE//SNOMED//80146002", True),
        ("LOINC//4548-4", True),
        ("LOINC//4548-5", False),  # wrong check digit
        ("LOINC//LA33-6", True),
        ("ICD10CM//E11.22", True),
        ("ICD10CM//E00-E89", True),
        ("ICD10CM//SMITH", False),
        ("ICD9CM//250.00", True),
        ("RxNorm//860975", True),
        ("RxNorm//91373433", False),
        ("NDC//00338001702", True),
        ("CVX//140", True),
        ("CVX//Smith", False),
        ("HCPCS//J1100", True),
        ("GENDER//female", True),
        ("GENDER//Zelmira", False),
        ("LANGUAGE//en-US", True),
        ("LANGUAGE//smith", False),
        ("RACE//2106-3", True),
        ("RACE//Smithian", False),
        ("VISIT_START//AMB", True),
        ("MEDS_BIRTH", True),
        ("OBSERVATION_END", True),
        ("LOCAL//seen by Dr Smith", False),
        ("Zelmira Quorvath", False),
        ("hospital.example//123", False),
        ("LOINC//45396-9", False),  # social security number
        ("LOINC//45401-7", False),  # ZIP code
        ("ZIP//02139", False),
        ("MIMIC_LAB//50902", True),
        ("MIMIC_LAB//5551234", False),
        ("SNOMED//44054006\n", False),
        ("SNOMED//٤٤٠٥٤٠٠٦", False),
    ],
)
def test_codes_are_kept_by_system_and_shape(code, kept):
    assert (AllowList(Policy()).judge(code).code is not None) == kept


def test_a_visit_of_unknown_class_keeps_its_start():
    verdict = AllowList(Policy()).judge("VISIT_START//Dr Smith's ward")
    assert verdict.code == "VISIT_START//UNKNOWN"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("SNOMED//266919005", True),
        ("SNOMED//266919006", False),
        ("POSITIVE", True),
        ("  Negative. ", True),
        ("<0.01", True),
        ("1:40", True),
        ("5-10 mg", True),
        ("555-1234 mg", False),
        ("Zelmira", False),
        ("positive, told Mr Smith", False),
        ("2015-05-06", False),
        ("GENDER//female", False),
    ],
)
def test_texts_are_kept_by_list_and_shape(text, kept):
    assert AllowList(Policy()).keeps_text(text) == kept


@pytest.mark.parametrize(
    ("code", "policy", "becomes"),
    [
        ("ZIP//02139", Policy(geography="zip3"), "ZIP3//021"),
        ("ZIP//02139-4307", Policy(geography="zip3"), "ZIP3//021"),
        ("ZIP3//036", Policy(geography="zip3"), "ZIP3//000"),
        ("ZIP//82190", Policy(geography="zip3"), "ZIP3//000"),
        ("ZIP//Cambridge", Policy(geography="zip3"), None),
        ("ZIP//02139", Policy(), None),
        ("SITE//ward", Policy(allow=Allow(systems={"SITE": "ward|clinic"})), "SITE//ward"),
        ("SITE//Zelmira", Policy(allow=Allow(systems={"SITE": "ward|clinic"})), None),
        ("SNOMED//44054006", Policy(deny=Deny(codes=["SNOMED//44054006"])), None),
        ("SNOMED//44054006", Policy(deny=Deny(systems=["SNOMED"])), None),
    ],
)
def test_a_policy_adds_and_takes(code, policy, becomes):
    assert AllowList(policy).judge(code).code == becomes


def test_small_areas_hold_the_17_of_the_2000_census():
    listed = {
        "036",
        "059",
        "063",
        "102",
        "203",
        "556",
        "692",
        "790",
        "821",
        "823",
        "830",
        "831",
        "878",
        "879",
        "884",
        "890",
        "893",
    }
    assert len(listed) == 17
    assert listed <= set(built_in().geography.small_areas)


def test_units_and_texts_outside_the_lists_are_removed_and_counted(deidentify):
    rows = everybody() + [
        row(subject, datetime(2015, 3, 4, 11), GLUCOSE, numeric_value=90.0, unit=unit, text_value=text)
        for subject in range(1, 21)
        for unit, text in (("mg/dL", "high"), ("Zelmira", "told Zelmira"))
    ]
    frame, report = deidentify(rows)
    assert set(frame["unit"].drop_nulls()) == {"mg/dL"}
    assert set(frame["text_value"].drop_nulls()) == {"high"}
    assert report.changed["unit that is not allowed removed"] == 20
    assert report.changed["text that is no allowed answer removed"] == 20


def test_numbers_that_may_be_identifiers_are_removed_and_ages_capped(deidentify):
    values = [(5551234567.0, None), (2.0e6, "mg/dL"), (97.0, "a"), (1200.0, "mo"), (42.0, "a"), (12345.0, None)]
    rows = everybody() + [
        row(subject, datetime(2015, 3, 4, 11, place), GLUCOSE, numeric_value=value, unit=unit)
        for subject in range(1, 21)
        for place, (value, unit) in enumerate(values)
    ]
    frame, report = deidentify(rows)
    assert set(frame["numeric_value"].drop_nulls()) == {2.0e6, 90.0, 1080.0, 42.0, 12345.0}
    assert report.changed["age of 90 or more made 90"] == 40
    assert report.changed["long number without a unit removed"] == 20


def test_codes_of_other_systems_can_be_hashed(deidentify):
    rows = everybody() + [row(subject, datetime(2015, 3, 4), "WARD//Zelmira") for subject in range(1, 21)]
    frame, _ = deidentify(rows, Policy(other_codes="hash"))
    (hashed,) = [code for code in frame["code"].unique() if "HASHED" in code]
    assert len(hashed.removeprefix("HASHED//")) == 16
    other, _ = deidentify(rows, Policy(other_codes="hash"), seed=2)
    assert hashed not in set(other["code"])


def test_descriptions_come_from_the_table_that_is_vouched_for(deidentify, tmp_path):
    rows = everybody(description="seen by Zelmira")
    table = tmp_path / "displays.csv"
    table.write_text(f"code,description\n{DIABETES},Type 2 diabetes\n")
    assert "description" not in deidentify(rows)[0].columns
    frame, _ = deidentify(rows, Policy(displays=str(table)))
    assert set(frame["description"].drop_nulls()) == {"Type 2 diabetes"}
    shared, report = deidentify(everybody(description="Mr Smith's disease"), Policy(descriptions="shared"))
    assert "description" not in shared.columns
    assert report.changed["description that looks like an identifier removed"] == 60


# Ids


def test_ids_follow_from_the_key_alone(deidentify, tmp_path):
    rows = everybody()
    one, _ = deidentify(rows, seed="a")
    again, _ = deidentify(rows[::-1], seed="a")
    other, _ = deidentify(rows, seed="b")
    assert one.equals(again)
    assert not set(one["subject_id"]) & (set(other["subject_id"]) | set(range(1000)))
    drawn = [set(deidentify(rows, seed=None)[0]["subject_id"]) for _ in range(2)]
    assert not drawn[0] & drawn[1]


def test_visits_are_counted_from_one_in_time(deidentify):
    frame, _ = deidentify(everybody())
    numbered = frame.drop_nulls("visit_id").group_by("subject_id", maintain_order=True).agg("visit_id")
    assert set(map(tuple, numbered["visit_id"].to_list())) == {(1, 2, 3)}


def test_the_mapping_is_written_only_when_asked_for(deidentify, tmp_path):
    mapping = tmp_path / "keys" / "mapping.csv"
    frame, _ = deidentify(everybody(), mapping=mapping)
    table = pl.read_csv(mapping)
    assert table["source_id"].sort().to_list() == list(range(1, 21))
    assert set(table["subject_id"]) == set(frame["subject_id"])
    assert mapping.stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="exists already"):
        deidentify(everybody(), mapping=mapping)
    with pytest.raises(UsageError, match="keep it apart"):
        import_events(tmp_path / "1.parquet", tmp_path / "o", deidentify=Policy(), mapping=tmp_path / "o" / "m.csv")


def test_splits_of_the_source_follow_their_subjects(tmp_path):
    frame = events.conform(pl.DataFrame(everybody(), infer_schema_length=None))
    events.write_events(frame, tmp_path / "source")
    before = dict(events.read_splits(tmp_path / "source").iter_rows())
    mapping = tmp_path / "mapping.csv"
    import_events(tmp_path / "source", tmp_path / "out", deidentify=Policy(), mapping=mapping)
    after = dict(events.read_splits(tmp_path / "out").iter_rows())
    pairs = dict(pl.read_csv(mapping).iter_rows())
    assert {source: after[new] for source, new in pairs.items()} == before


# Times and ages


def gaps(frame):
    """Times of each subject's events but the birth, as gaps from its first one; sorted, without ids."""
    timed = frame.filter(pl.col("time").is_not_null() & (pl.col("code") != codes.BIRTH))
    relative = timed.with_columns(gap=pl.col("time") - pl.col("time").min().over("subject_id"))
    return sorted(map(tuple, relative.group_by("subject_id", maintain_order=True).agg("gap")["gap"].to_list()))


@pytest.mark.parametrize("mode", ["relative", "shift"])
@pytest.mark.parametrize("weekday", [False, True])
def test_gaps_and_times_of_day_stay_and_dates_do_not(mode, weekday, deidentify):
    firsts = {s: datetime(2001 + s % 9, 1 + s % 12, 1 + s, 9, s) for s in range(1, 26)}
    rows = [
        entry for subject, first in firsts.items() for entry in life(subject, first=first, days=(0, 3, 95 + subject))
    ]
    frame, _ = deidentify(rows, Policy(times=Times(mode=mode, weekday=weekday)))
    source = pl.DataFrame(rows, infer_schema_length=None)
    assert gaps(frame) == gaps(source)
    shifted = (
        frame.filter(pl.col("code") == DIABETES).group_by("subject_id").agg(pl.col("time").min())["time"].to_list()
    )
    by_minute = {moment.minute: moment for moment in shifted}
    moved = [(by_minute[subject].date() - first.date()).days for subject, first in firsts.items()]
    assert all(by_minute[subject].hour == 9 for subject in firsts)
    assert sum(days == 0 for days in moved) <= (2 if mode == "relative" else 0)
    assert len(set(moved)) > 15
    if weekday:
        assert all(days % 7 == 0 for days in moved)
    if mode == "relative":
        assert all(by_minute[subject].year == first.year for subject, first in firsts.items())
    else:
        assert all(abs(days) <= 365 for days in moved)


def test_years_can_be_coarsened_to_none(deidentify):
    rows = [entry for subject in range(1, 21) for entry in life(subject, first=datetime(1990 + subject, 5, 6))]
    frame, _ = deidentify(rows, Policy(times=Times(years=0)))
    firsts = frame.filter(pl.col("code") == DIABETES).group_by("subject_id").agg(pl.col("time").min())["time"]
    assert set(firsts.dt.year()) == {2000}
    decades, _ = deidentify(rows, Policy(times=Times(years=10)))
    firsts = decades.filter(pl.col("code") == DIABETES).group_by("subject_id").agg(pl.col("time").min())["time"]
    assert {year // 10 for year in firsts.dt.year()} == {199, 200, 201}


def ages(frame):
    """(age in years at the first other event, at the last event) of each subject that has a birth."""
    birth, time = pl.col("code") == codes.BIRTH, pl.col("time")
    table = frame.group_by("subject_id").agg(
        born=time.filter(birth).min(), first=time.filter(~birth).min(), last=time.max()
    )
    years = [pl.col(name) - pl.col("born") for name in ("first", "last")]
    return [
        tuple(gap.total_seconds() / 86_400 / 365.2425 for gap in pair)
        for pair in table.drop_nulls("born").select(years[0].alias("a"), years[1].alias("b")).rows()
    ]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_births_lie_at_whole_years_of_age(data, tmp_path_factory):
    births = [
        data.draw(st.datetimes(datetime(1930, 1, 1), datetime(2010, 1, 1)), label=f"birth {number}")
        for number in range(12)
    ]
    rows = [entry for number, born in enumerate(births) for entry in life(number + 1, born=born)]
    folder = tmp_path_factory.mktemp("births")
    events.conform(pl.DataFrame(rows, infer_schema_length=None)).write_parquet(folder / "e.parquet")
    import_events(folder / "e.parquet", folder / "out", deidentify=Policy(), seed=1)
    found = sorted(first for first, _ in ages(events.read_events(folder / "out").collect()))
    true = sorted((datetime(2015, 3, 4, 10) - born).days / 365.2425 for born in births)
    assert all(abs(age - round(age)) < 0.01 for age in found)
    assert all(-0.01 <= was - now <= 1.01 for was, now in zip(true, found, strict=True))


def test_ages_under_two_years_are_whole_months(deidentify):
    rows = [
        entry
        for subject in range(1, 21)
        for entry in life(subject, born=datetime(2015, 3, 4) - timedelta(days=30 * subject + 3))
    ]
    frame, _ = deidentify(rows)
    months = [first * 12 for first, _ in ages(frame)]
    assert all(abs(month - round(month)) < 0.08 for month in months)
    assert len({round(month) for month in months}) > 15


@pytest.mark.parametrize("times", [Times(), Times(mode="shift"), Times(mode="keep"), Times(whole_years=False)])
def test_nobody_is_older_than_90(times, deidentify):
    rows = everybody()
    for subject, year in enumerate(range(1886, 1940, 2), start=101):
        rows += life(subject, born=datetime(year, 5, 6), days=(0, 30, 3000), end_time=datetime(2040, 1, 1))
    frame, report = deidentify(rows, Policy(times=times))
    assert all(last <= 90.01 for _, last in ages(frame))
    span = pl.max_horizontal("time", "end_time").max() - pl.col("time").filter(pl.col("code") == codes.BIRTH).min()
    spans = frame.group_by("subject_id").agg(span=span).drop_nulls()["span"]
    assert max(spans).days <= 90 * 365.25 + 1
    assert report.changed["birth of somebody of 90 or more put 90 years before the last event"] > 10


def test_records_longer_than_90_years_lose_their_beginning(deidentify):
    rows = everybody()
    for subject in range(101, 121):
        rows += life(subject, born=datetime(1910, 5, 6), first=datetime(1910, 5, 6), days=(0, 10_000, 36_000))
    frame, report = deidentify(rows)
    assert report.dropped["event more than 90 years before the last left out"] == 20
    assert all(first >= 0 and last <= 90.01 for first, last in ages(frame))


def test_implausible_and_repeated_births_go(deidentify):
    rows = everybody() + list(life(99, born=datetime(1850, 1, 1))) + [row(1, datetime(1970, 1, 1), codes.BIRTH)]
    frame, report = deidentify(rows)
    assert frame.filter(pl.col("code") == codes.BIRTH).height == 20
    assert report.dropped["birth more than 130 years before the first event left out"] == 1
    assert report.dropped["further birth of a subject left out"] == 1


def test_a_common_end_of_follow_up_does_not_undo_the_shift(deidentify):
    known = datetime(2020, 6, 30, 23, 59, 59)
    firsts = {s: datetime(2010, 1, 1, 10, s) + timedelta(days=97 * s) for s in range(1, 31)}
    rows = [entry for subject, first in firsts.items() for entry in life(subject, first=first, days=range(0, 700, 50))]
    rows += [row(subject, known, END) for subject in firsts]
    for hide in (True, False):
        frame, _ = deidentify(rows, Policy(times=Times(hide_common_end=hide)))
        by_subject = frame.group_by("subject_id").agg(
            end=pl.col("time").filter(pl.col("code") == END).first(),
            first=pl.col("time").filter(pl.col("code") == DIABETES).min(),
        )
        # Whoever knows the common end takes the distance of the first event from it.
        guesses = {first.minute: known - (end - first) for end, first in by_subject.select("end", "first").iter_rows()}
        right = sum(guesses[subject].date() == first.date() for subject, first in firsts.items())
        assert right <= 2 if hide else right == len(firsts)
        late = frame.join(by_subject, on="subject_id").filter(pl.col("time") > pl.col("end"))
        assert late.is_empty()
    apart = [entry for entry in rows if entry["code"] != END] + [
        row(subject, known - timedelta(days=subject), END) for subject in firsts
    ]
    assert not deidentify(apart)[1].dropped


# Rare codes


def test_rare_codes_go_up_to_a_parent_that_enough_have(deidentify):
    rows = everybody()
    place = {
        "ICD10CM//E11.21": range(1, 7),
        "ICD10CM//E11.22": range(5, 13),
        "ICD10CM//E11.3": [1, 2],
        "ICD10CM//Q99.8": [3],
    }
    rows += [row(subject, datetime(2015, 3, 5), code) for code, whose in place.items() for subject in whose]
    rows += [row(subject, datetime(2015, 3, 5), "SNOMED//22298006") for subject in range(1, 11)]
    frame, report = deidentify(rows)
    patients = dict(frame.group_by("code").agg(pl.col("subject_id").n_unique()).iter_rows())
    assert patients["ICD10CM//E11.2"] == 12
    assert "ICD10CM//E11.21" not in patients
    assert "SNOMED//22298006" not in patients
    assert all(count >= 11 for count in patients.values())
    assert (report.rare_codes, report.rolled_up_codes) == (5, 2)


@settings(max_examples=200, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["A00.01", "A00.02", "A00.1", "A00", "B99.9", "B99"]))),
    parts=st.integers(1, 4),
)
def test_after_rolling_up_no_code_is_rare_and_parts_do_not_matter(pairs, parts):
    table = pl.DataFrame(pairs, schema={"subject_id": pl.Int64, "value": pl.String}, orient="row")
    table = table.with_columns("ICD10CM//" + pl.col("value")).unique(maintain_order=True)
    counts = PatientCounts(3)
    for part in range(parts):
        counts.add(table.filter(pl.col("subject_id") % parts == part))
    rolled = counts.rolled_up(codes.parents)
    after = table.with_columns(pl.col("value").replace(rolled)).drop_nulls()
    assert all(number >= 3 for number in after.group_by("value").agg(pl.col("subject_id").n_unique())["subject_id"])
    frequent = table.group_by("value").agg(pl.col("subject_id").n_unique()).filter(pl.col("subject_id") >= 3)["value"]
    assert not set(frequent) & set(rolled)
    assert all(new is None or new == old or new in codes.parents(old) for old, new in rolled.items())


def test_rare_answers_go(deidentify):
    rows = everybody() + [
        row(subject, datetime(2015, 3, 5), GLUCOSE, text_value="high" if subject > 3 else "low")
        for subject in range(1, 21)
    ]
    frame, report = deidentify(rows)
    assert set(frame["text_value"].drop_nulls()) == {"high"}
    assert report.changed["answer of too few patients removed"] == 3


def test_what_a_cut_makes_rare_goes_too(deidentify):
    """A code that enough have only in the months before the common end, which are cut off at random."""
    rows = everybody(40) + [row(subject, datetime(2016, 6, 30), END) for subject in range(1, 41)]
    rows += [row(subject, datetime(2016, 6, 29), "SNOMED//22298006") for subject in range(1, 12)]
    frame, report = deidentify(rows)
    assert report.dropped["event in the last year before a common end of follow-up left out"] >= 11
    patients = frame.group_by("code").agg(pl.col("subject_id").n_unique())["subject_id"]
    assert patients.min() >= 11


# The last look


LOOK_ALIKES = {
    "an e-mail address": "zelmira@quorvath.org",
    "a web address": "see https://quorvath.example/1",
    "an IP address": "192.168.17.4",
    "a hardware address": "00:1b:44:11:3a:b7",
    "a social security number": "123-45-6789",
    "a telephone or fax number": "(617) 555-0123",
    "a date": "on 3 March 2015",
    "an age over 89": "aged 93",
    "a record, plan or account number": "MRN: 00482917",
    "a licence, certificate or passport number": "licence no. D1234567",
    "a vehicle or its plate": "1HGCM82633A004352",
    "a device's serial number": "serial no. AX-99812",
    "an account number": "DE89 3704 0044 0532 0130 00",
    "a long number": "7748291",
    "a ZIP code or street": "12 Elm Street",
    "a UUID or hash": "123e4567-e89b-12d3-a456-426614174000",
    "a reference to a record": "Patient/p1",
    "a picture, recording or fingerprint": "face.jpg",
    "embedded data": "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9w",
    "a name with a title": "Dr. Quorvath",
    "a name": "mary johnson",
}


@pytest.mark.parametrize("kind", [*SIGNS, "a name"])
def test_every_kind_is_seen_and_aborts_without_being_told(kind, deidentify):
    text = LOOK_ALIKES[kind]
    rows = everybody() + [row(subject, datetime(2015, 3, 5), GLUCOSE, text_value=text) for subject in range(1, 21)]
    with pytest.raises(
        InputError, match="de-identification left 1 texts in column text_value that look like"
    ) as refusal:
        deidentify(rows, Policy(allow=Allow(patterns=[".*"])))
    assert text not in str(refusal.value)
    assert f"the first with code {GLUCOSE}" in str(refusal.value)
    assert kind in str(refusal.value) or kind == "a long number"


def test_what_the_lists_allow_looks_like_nothing(deidentify):
    scan, lists = Scan(AllowList(Policy())), built_in()
    assert [text for text in lists.texts.answers if scan.looks_like(text)] == []


# Risk


def test_k_anonymity_and_diversity_by_hand(deidentify):
    rows = everybody(12) + [entry for subject in (51, 52, 53) for entry in life(subject, born=datetime(1990, 1, 1))]
    rows += [row(subject, datetime(2015, 3, 6), "ICD10CM//I10") for subject in range(1, 13)]
    _, report = deidentify(rows)
    coarse = report.likeness[0]
    assert (coarse.known, coarse.classes, coarse.k, coarse.unique) == (["sex", "age_band"], 2, 3, 0)
    assert (coarse.in_small_classes, coarse.l) == (3, 1)


def test_knowledge_of_codes_singles_out(deidentify):
    """All are alike but for what they have: half have a sensitive code and half not, a quarter a pair of codes."""
    rows = everybody(44)
    rows += [row(subject, datetime(2015, 3, 6), "ICD10CM//F20.0") for subject in range(1, 23)]
    rows += [row(subject, datetime(2015, 3, 6), "ICD10CM//I10") for subject in range(12, 34)]
    _, report = deidentify(rows, Policy(risk=Risk(k=12, known_codes=3, confidence=0.6)))
    none, *_, all_codes = report.knowledge
    assert (none.in_small_groups, none.median_group, none.sensitive_told) == (0.0, 44.0, 0.0)
    # Those with both codes are 11 of 44, fewer than 12.
    assert all_codes.in_small_groups == 0.25
    assert all_codes.known_codes == 3


# Options and policies


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"identified": True, "deidentify": "safe-harbor"}, "left as they are"),
        ({"identified": True, "seed": 1}, "left as they are"),
        ({"seed": 1}, "of de-identification"),
        ({"mapping": "m.csv"}, "of de-identification"),
    ],
)
def test_options_that_contradict_one_another(options, said, tmp_path):
    events.conform(pl.DataFrame(everybody(), infer_schema_length=None)).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(UsageError, match=said):
        import_events(tmp_path / "e.parquet", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_which_formats_are_of_real_people():
    assert {name for name, importer in IMPORTERS.items() if importer.identified} == {"fhir", "omop", "mimic"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("min_patients = 0", "min_patients"),
        ("minimum = 3", "minimum"),
        ('[times]\nmode = "none"', "mode"),
        ('[allow.systems]\nX = "["', "no regular expression"),
        ("= 3", "not valid TOML"),
        ('key_file = "absent"', "cannot read the key file"),
        ('displays = "absent.csv"', "no table of displays"),
    ],
)
def test_policies_that_cannot_be_used(text, said, tmp_path, deidentify):
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        deidentify(everybody(), path, seed=None)


def test_a_key_file_gives_the_same_ids_every_time(deidentify, tmp_path):
    (tmp_path / "key").write_bytes(bytes(range(32)))
    (tmp_path / "policy.toml").write_text('name = "ours"\nkey_file = "key"')
    assert load_policy(tmp_path / "policy.toml").name == "ours"
    one, report = deidentify(everybody(), tmp_path / "policy.toml", seed=None)
    two, _ = deidentify(everybody(), tmp_path / "policy.toml", seed=None)
    assert one.equals(two)
    assert report.policy == "ours"
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(InputError, match="shorter than 16 bytes"):
        deidentify(everybody(), tmp_path / "policy.toml", seed=None)


def test_the_command_line_takes_a_policy_and_tells_the_result(tmp_path, capsys):
    events.conform(pl.DataFrame(everybody(), infer_schema_length=None)).write_parquet(tmp_path / "e.parquet")
    (tmp_path / "p.toml").write_text('min_patients = 5\n[times]\nmode = "shift"\n')
    arguments = ["import", str(tmp_path / "e.parquet"), "--out", str(tmp_path / "out")]
    assert (
        cli.run([*arguments, "--deidentify", str(tmp_path / "p.toml"), "--seed", "s", "--mapping", str(tmp_path / "m")])
        == 0
    )
    said = capsys.readouterr().out
    assert "an expert must determine the risk" in said
    assert "alike in sex, age_band" in said
    assert pl.read_csv(tmp_path / "m").height == 20


def test_spilling_and_parts_do_not_change_the_bytes(tmp_path, monkeypatch):
    from ehrsim.importers import sink

    rows = [entry for s in range(1, 60) for entry in life(s, first=datetime(2001, 1, 1) + timedelta(days=31 * s))]
    events.conform(pl.DataFrame(rows, infer_schema_length=None)).write_parquet(tmp_path / "e.parquet")
    written = []
    for name, spill in (("whole", 1_000_000), ("spilled", 20)):
        monkeypatch.setattr(sink, "SPILL_ROWS", spill)
        report = import_events(tmp_path / "e.parquet", tmp_path / name, deidentify=Policy(), seed=4)
        written.append((events.sort(events.read_events(tmp_path / name)).collect(), report.deidentification))
    (one, of_one), (two, of_two) = written
    assert one.equals(two)
    assert of_one == of_two
    assert one["time"].dt.date().min() > date(1959, 1, 1)
