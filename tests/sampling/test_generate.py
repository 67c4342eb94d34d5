"""Generated cohorts: exactly those asked for, the same bytes however they are drawn, and every condition kept."""

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import special

from ehrsim import codes, events, models, runs, training
from ehrsim.errors import InputError, UsageError
from ehrsim.models.markov import AGE_BANDS
from ehrsim.models.vae import VAEConfig
from ehrsim.sampling import Conditions, blocks, generate, generate_to

DIABETES = codes.join("condition", "ICD10CM", "E11.9")
PROSTATE = codes.join("condition", "ICD10CM", "N40.0")


@pytest.fixture(scope="session")
def cohort(tiny_run) -> pl.DataFrame:
    """100 patients of the baseline."""
    return generate(tiny_run("markov").folder, 100, seed=3, slots=32).collect()


def of_patients(frame: pl.DataFrame, first: int, end: int) -> pl.DataFrame:
    return frame.filter(pl.col("subject_id").is_between(first + 1, end))


@pytest.mark.parametrize("name", ["markov", "vae", pytest.param("gan", marks=pytest.mark.slow)])
def test_a_generated_table_is_valid(name, tiny_run, tiny_events):
    frame = generate(tiny_run(name).folder, 60, seed=3, slots=32).collect()
    assert events.validate(frame.lazy()) == []
    assert frame["subject_id"].unique(maintain_order=True).to_list() == list(range(1, 61))
    assert set(frame["code"]) <= set(tiny_events["code"])
    assert frame.equals(events.sort(frame.lazy()).collect())
    births = frame.filter(pl.col("code") == codes.BIRTH)
    assert births["subject_id"].to_list() == list(range(1, 61))


def test_times_lie_within_lives(cohort):
    birth = pl.col("time").filter(pl.col("code") == codes.BIRTH).first().over("subject_id")
    death = pl.col("time").filter(pl.col("code") == codes.DEATH).first().over("subject_id")
    assert cohort.filter(pl.col("time") < birth).is_empty()
    assert cohort.filter((pl.col("time") > death) | (pl.col("end_time") > death)).is_empty()
    assert cohort.filter(pl.col("end_time") < pl.col("time")).is_empty()
    assert 10 < cohort.filter(pl.col("code") == codes.DEATH).height < 90


def test_records_begin_at_birth_as_often_as_in_the_data(cohort, tiny_events):
    def share(frame: pl.DataFrame) -> float:
        of_patient = frame.group_by("subject_id").agg(
            birth=pl.col("time").filter(pl.col("code") == codes.BIRTH).first(),
            first=pl.col("time").filter(pl.col("visit_id").is_not_null()).min(),
        )
        return of_patient.drop_nulls().select((pl.col("birth") == pl.col("first")).mean()).item()

    assert abs(share(cohort) - share(tiny_events)) < 0.1


def test_values_have_the_precision_of_their_code(cohort, tiny_events):
    for code in ("LOINC//4548-4", "LOINC//8480-6"):
        made, seen = (frame.filter(pl.col("code") == code) for frame in (cohort, tiny_events))
        assert made["unit"].unique().to_list() == seen["unit"].unique().to_list()
        assert seen["numeric_value"].min() <= made["numeric_value"].min()
        assert made["numeric_value"].max() <= seen["numeric_value"].max()
    whole = cohort.filter(pl.col("code") == "LOINC//8480-6")["numeric_value"]
    assert (whole == whole.round()).all()


@pytest.mark.parametrize("slots", [8, pytest.param(64, marks=pytest.mark.slow)])
def test_slots_change_nothing(slots, tiny_run, cohort):
    assert generate(tiny_run("markov").folder, 100, seed=3, slots=slots).collect().equals(cohort)


@pytest.mark.slow
def test_slots_change_nothing_with_latents(tiny_run):
    one, other = (generate(tiny_run("vae").folder, 60, seed=3, slots=slots).collect() for slots in (8, 64))
    assert one.equals(other)


@pytest.mark.slow
@pytest.mark.parametrize("emission", ["ordered", "two-level"])
def test_slots_change_nothing_with_codes_one_after_the_other(emission, tiny_events, tiny_training, tmp_path):
    run = training.fit(
        tiny_events,
        tmp_path / "run",
        model="vae",
        model_config=VAEConfig(emission=emission, width=32, attribute_width=16),
        training=tiny_training,
    )
    assert run.model.config.emission == emission
    one, other = (generate(tmp_path / "run", 60, seed=3, slots=slots).collect() for slots in (8, 64))
    assert one.equals(other)
    assert one.height > 60
    assert events.validate(one.lazy()) == []


def test_a_patient_depends_on_its_number_alone(tiny_run, cohort):
    run = tiny_run("markov").folder
    assert generate(run, 40, seed=3, slots=32).collect().equals(of_patients(cohort, 0, 40))
    loaded = runs.load(run)
    drawn = blocks.sample(loaded.model, loaded.vocabulary, loaded.scales, first=60, end=90, seed=3, slots=32)
    subjects = [subject for sequences, _ in drawn for subject in sequences.subject.tolist()]
    assert subjects == list(range(61, 91))


def test_another_seed_gives_other_patients(tiny_run, cohort):
    assert not generate(tiny_run("markov").folder, 100, seed=4, slots=32).collect().equals(cohort)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_cohort_is_written_as_it_is_drawn(tiny_run, cohort, tmp_path):
    report = generate_to(tiny_run("markov").folder, tmp_path / "out", 100, seed=3, slots=32)
    assert (report.patients, report.attempts) == (100, 100)
    read = events.read_events(tmp_path / "out").collect()
    assert read.equals(cohort.select(read.columns))


def test_ranges_add_up_to_the_whole(tiny_run, cohort, tmp_path):
    run = tiny_run("markov").folder
    pieces = []
    for first, number in ((0, 37), (37, 63)):
        generate_to(run, tmp_path / str(first), number, first=first, seed=3, slots=32)
        pieces.append(events.read_events(tmp_path / str(first)).collect())
    whole = pl.concat(pieces)
    assert whole.equals(cohort.select(whole.columns))


PROGRAM = """
import sys
from ehrsim.sampling import blocks, generate_to
if __name__ == "__main__":
    run, out, processes = sys.argv[1], sys.argv[2], int(sys.argv[3])
    generate_to(run, out, 2100, seed=3, slots=64, processes=processes)
"""


@pytest.mark.slow
def test_processes_and_time_zones_change_nothing(tiny_run, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    written = []
    for processes, zone in ((1, "UTC"), (2, "UTC"), (1, "Asia/Kolkata")):
        out = tmp_path / f"{processes}-{zone.replace('/', '-')}"
        command = [sys.executable, str(program), str(tiny_run("markov").folder), str(out), str(processes)]
        subprocess.run(command, check=True, env={**os.environ, "TZ": zone})
        written.append(contents(out))
    assert written[0] == written[1] == written[2]
    assert len([name for name in written[0] if name.startswith("data/")]) == 2, "a shard a block"


@pytest.mark.slow
def test_nothing_changes_with_full_optimisation(tiny_run, tmp_path):
    """The other tests compile without optimisation, for speed; users do not."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom ehrsim.sampling import generate\n"
        "one, other = (generate(sys.argv[1], 200, seed=3, slots=slots).collect() for slots in (8, 64))\n"
        "assert one.equals(other)\n"
    )
    plain = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    for name in sorted(models.MODELS):
        subprocess.run([sys.executable, str(program), str(tiny_run(name).folder)], check=True, env=plain)


def facts(frame: pl.DataFrame) -> pl.DataFrame:
    """Sex, whether dead, and the ages at the first and last moment of each patient's record."""
    moments = pl.col("time").drop_nulls()
    return frame.group_by("subject_id").agg(
        pl.col("code").is_in(["GENDER//female"]).any().alias("female"),
        (pl.col("code") == codes.DEATH).any().alias("dead"),
        ((moments.max() - moments.min()).dt.total_days() / 365.25).alias("age"),
        pl.col("code").alias("codes"),
    )


def test_every_condition_holds_for_every_patient(tiny_run):
    conditions = Conditions(sex="male", age=(40, 75), alive=True, required=("ICD10CM//E11",), excluded=(PROSTATE,))
    frame = generate(tiny_run("markov").folder, 40, seed=2, slots=64, conditions=conditions).collect()
    found = facts(frame)
    assert found.height == 40
    assert not found["female"].any()
    assert not found["dead"].any()
    # Ages are counted in whole days at the last visit; a stay goes on for some days.
    assert found["age"].is_between(40 - 0.01, 75 + 0.02).all()
    assert found["codes"].list.contains(DIABETES).all()
    assert not found["codes"].list.contains(PROSTATE).any()
    assert events.validate(frame.lazy()) == []


def test_static_facts_go_by_code_or_by_display_and_value_sets_by_any_of_their_codes(tiny_run, tmp_path):
    (tmp_path / "set.txt").write_text("# either\nICD10CM//E11*\n\nICD10CM//J18.9\nICD10CM//Z99.9\n")
    either = [DIABETES, codes.join("condition", "ICD10CM", "J18.9")]
    run = tiny_run("markov").folder
    for race, required in (
        ("white", "ICD10CM//E11*|ICD10CM//J18.9|LOCAL//none"),
        ("2106-3", f"@{tmp_path / 'set.txt'}"),
    ):
        frame = generate(run, 20, seed=2, slots=32, conditions=Conditions(race=race, required=(required,))).collect()
        assert frame.filter(pl.col("code") == "RACE//2106-3")["subject_id"].n_unique() == 20
        assert frame.filter(pl.col("code").is_in(either))["subject_id"].n_unique() == 20
    both = generate(run, 20, seed=2, slots=32, conditions=Conditions(excluded=("ICD10CM//E11*|ICD10CM//J18.9",)))
    assert both.filter(pl.col("code").is_in(either)).collect().is_empty()


def test_the_deceased(tiny_run):
    conditions = Conditions(sex="female", age=(20, 60), alive=False)
    found = facts(generate(tiny_run("markov").folder, 40, seed=2, slots=64, conditions=conditions).collect())
    assert found["female"].all()
    assert found["dead"].all()
    assert found["age"].is_between(20 - 0.01, 60 + 0.02).all()


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (Conditions(sex="other"), "known: female, male"),
        (Conditions(race="Martian"), r"known: 2054-5 \(.+\), 2106-3 \(White\)"),
        (Conditions(ethnicity="2135-2"), "known: none"),
        (Conditions(required=("A*|B*",)), "no code of"),
        (Conditions(age=(50, 40)), "empty age range"),
        (Conditions(age=(float("nan"), 40)), "empty age range"),
        (Conditions(required=("ICD10CM//Z99.9",)), "not in the vocabulary"),
        (Conditions(excluded=("nonsense*",)), "not in the vocabulary"),
    ],
)
def test_conditions_on_the_unknown_are_refused(conditions, said, tiny_run):
    with pytest.raises(UsageError, match=said):
        generate(tiny_run("markov").folder, 5, conditions=conditions)


def test_conditions_that_nobody_meets_are_refused(tiny_run, monkeypatch):
    monkeypatch.setattr(blocks, "MOST_ATTEMPTS", 40)
    impossible = Conditions(sex="female", age=(300, 400), alive=False)
    with pytest.raises(UsageError, match="no patient meets the conditions in 40 draws"):
        generate(tiny_run("markov").folder, 5, slots=64, conditions=impossible)


@pytest.mark.parametrize(
    "numbers",
    [{"n": 0}, {"n": -3}, {"n": 5, "slots": 0}, {"n": 5, "seed": -1}, {"n": 5, "seed": 1 << 32}, {"n": 1 << 31}],
)
def test_numbers_out_of_range_are_refused(numbers, tiny_run, tmp_path):
    n = numbers.pop("n")
    with pytest.raises(UsageError):
        generate(tiny_run("markov").folder, n, **numbers)
    with pytest.raises(UsageError):
        generate_to(tiny_run("markov").folder, tmp_path / "out", n, processes=2, **numbers)
    assert list(tmp_path.iterdir()) == []


def test_no_processes_are_refused(tiny_run, tmp_path):
    with pytest.raises(UsageError, match="processes"):
        generate_to(tiny_run("markov").folder, tmp_path / "out", 5, processes=0)


@pytest.mark.slow
def test_the_sampler_draws_what_the_likelihood_scores(tiny_events, tiny_training, tmp_path, monkeypatch):
    """The baseline's own probabilities: of the first kind, and of each code at a first visit in an age band."""
    # So many places that none is ever short of one: a surplus is left out, the last codes first.
    monkeypatch.setattr(training.table, "suggest_places", lambda _: 64)
    run = training.fit(tiny_events, tmp_path / "run", model="markov", training=tiny_training)
    assert _compare_with_model(run, generate(run, 4000, seed=9, slots=256).collect()) > 500


def _compare_with_model(run, frame: pl.DataFrame) -> int:
    """The number of first visits that were compared."""
    model, vocabulary, sizes = run.model, run.vocabulary, run.model.sizes
    visits = frame.filter(pl.col("visit_id") == 1)
    starts = visits.filter(pl.col("code").str.starts_with("VISIT_START//")).select("subject_id", "code", "time")
    number = frame["subject_id"].n_unique()
    logits = np.asarray(model.kind_table[...])[sizes.kinds].astype(np.float64)
    logits[sizes.continues] = -np.inf
    share = special.softmax(logits)
    # Visit 1 is the first step where no step outside visits and no end came before it.
    for index, entry in enumerate(vocabulary.visit_types, 1):
        count = starts.filter(pl.col("code") == entry.code).height
        other = share[0] / (1 - share[0]) * share[index]
        sd = np.sqrt(number * share[index] * (1 - share[index]))
        assert -4.5 * sd < count - number * share[index] < 4.5 * sd + number * other + 1, entry
    births = frame.filter(pl.col("code") == codes.BIRTH).select("subject_id", birth="time")
    ambulatory = starts.filter(pl.col("code") == "VISIT_START//AMB").join(births, on="subject_id")
    ages = (ambulatory["time"] - ambulatory["birth"]).dt.total_days().to_numpy() / 365.25
    band = np.searchsorted(np.array(AGE_BANDS), ages, side="right")
    kind = vocabulary.type_index[next(e for e in vocabulary.visit_types if e.code == "VISIT_START//AMB")]
    base = np.asarray(model.kind_codes[...])[kind] + np.asarray(model.age_codes[...])[band]
    statics = frame.filter(pl.col("time").is_null()).join(ambulatory.select("subject_id"), on="subject_id")
    row_of = {subject: row for row, subject in enumerate(ambulatory["subject_id"].to_list())}
    table = np.asarray(model.static_codes[...])
    for subject, code in statics.select("subject_id", "code").iter_rows():
        index = next(i for entry, i in vocabulary.static_index.items() if entry.code == code)
        base[row_of[subject]] += table[index]
    chance = special.expit(base.astype(np.float64))
    first = visits.filter(pl.col("subject_id").is_in(ambulatory["subject_id"].to_list()))
    for index, entry in enumerate(vocabulary.entries, 1):
        count = first.filter(pl.col("code") == entry.code)["subject_id"].n_unique()
        expected, variance = chance[:, index].sum(), (chance[:, index] * (1 - chance[:, index])).sum()
        assert abs(count - expected) < 4.5 * np.sqrt(variance) + 1, (entry.code, count, expected)
    return len(ages)


def test_a_value_set_that_cannot_be_read_is_refused(tiny_run):
    with pytest.raises(InputError, match=r"nowhere\.txt"):
        generate(tiny_run("markov").folder, 5, conditions=Conditions(required=("@nowhere.txt",)))
