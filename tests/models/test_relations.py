"""What a sequence VAE has to keep of the records it learned from: sharp relations, and habits of a patient."""

import msgspec
import numpy as np
import polars as pl
import pytest

from ehrsim import codes, events
from ehrsim.models.vae import VAEConfig
from ehrsim.sampling import generate
from ehrsim.training import fit, training_config

HYPERTENSION, DIALYSIS = "SNOMED//38341003", "PROCEDURE//SNOMED//108241001"
PRESSURE = "LOINC//8462-4"
RARE, DRUG = "SNOMED//40930008", "RxNorm//10582"
PATIENTS = 600


def record(subject: int, rng: np.random.Generator) -> list[tuple]:
    """Yearly visits at the hour of the patient; a diagnosis, once, lifts all pressures from then on.

    A visit with dialysis lasts four days, any other an hour. One patient in 14 has a disease, and its drug from the
    next visit on.
    """
    birth = np.datetime64("1950-01-01T00:00", "m") + int(rng.integers(0, 20 * 365)) * np.timedelta64(1440, "m")
    hour, onset = int(rng.integers(8, 18)), int(rng.integers(0, 16))
    fell_ill = int(rng.integers(0, 4)) if rng.random() < 1 / 14 else 99

    def row(when, code, visit=None, value=None) -> tuple:
        moment = None if when is None else when.astype("datetime64[us]").item()
        return subject, moment, code, value, None, None, visit, None

    rows = [row(birth, codes.BIRTH), row(None, "GENDER//female")]
    for visit in range(int(rng.integers(4, 9))):
        day = birth + ((40 + visit) * 365 + int(rng.integers(0, 60))) * np.timedelta64(1440, "m")
        start, dialysis = day + np.timedelta64(60 * hour, "m"), rng.random() < 0.3
        end = start + np.timedelta64(4 * 1440 if dialysis else 60, "m")
        rows += [row(start, "VISIT_START//AMB", visit), row(end, "VISIT_END//AMB", visit)]
        if visit == onset:
            rows.append(row(start, HYPERTENSION, visit))
        if dialysis:
            rows.append(row(start, DIALYSIS, visit))
        if visit == fell_ill:
            rows.append(row(start, RARE, visit))
        if visit > fell_ill:
            rows.append(row(start, DRUG, visit))
        pressure = rng.integers(90, 121) if visit >= onset else rng.integers(60, 90)
        rows.append(row(start, PRESSURE, visit, float(pressure)))
    return rows


@pytest.fixture(scope="module")
def simulated() -> pl.DataFrame:
    """Patients of a VAE that was trained on such records."""
    rng = np.random.Generator(np.random.Philox(key=2))
    rows = [row for subject in range(1, PATIENTS + 1) for row in record(subject, rng)]
    frame = pl.DataFrame(rows, schema=list(events.SCHEMA), orient="row", infer_schema_length=None)
    config = msgspec.structs.replace(VAEConfig(), width=64, attribute_width=32, patient_latent=8, visit_latent=4)
    training = training_config("small", max_steps=400, steps_per_batch=1024, raking=0)
    run = fit(events.sort(events.conform(frame).lazy()).collect(), model="vae", model_config=config, training=training)
    return generate(run, PATIENTS, seed=1).lazy().collect()


@pytest.mark.slow
def test_a_diagnosis_changes_the_values_after_it(simulated):
    onset = simulated.filter(pl.col("code") == HYPERTENSION).group_by("subject_id").agg(onset=pl.col("time").min())
    pressures = simulated.filter(pl.col("code") == PRESSURE).join(onset, on="subject_id", how="left")
    diagnosed = (pl.col("onset") <= pl.col("time")).fill_null(False)
    share = (
        pressures.group_by(diagnosed.alias("diagnosed")).agg((pl.col("numeric_value") > 89.5).mean()).sort("diagnosed")
    )
    without, with_it = share["numeric_value"]
    assert 0.1 < pressures.select(diagnosed.mean()).item() < 0.4
    assert without < 0.03
    assert with_it > 0.95


@pytest.mark.slow
def test_a_drug_follows_its_disease(simulated):
    """And no other: neither what few have nor what comes next is blurred."""
    first = (
        simulated.filter(pl.col("code").is_in([RARE, DRUG])).group_by("subject_id", "code").agg(pl.col("time").min())
    )
    onset, drug = (first.filter(pl.col("code") == code).select("subject_id", "time") for code in (RARE, DRUG))
    last = simulated.group_by("subject_id").agg(last=pl.col("time").filter(pl.col("code") == PRESSURE).max())
    ill = onset.join(last, on="subject_id").join(drug, on="subject_id", how="left", suffix="_drug")
    seen_again = ill.filter(pl.col("last") > pl.col("time"))
    assert 0.04 < onset.height / PATIENTS < 0.11
    assert seen_again["time_drug"].is_not_null().mean() > 0.9
    assert drug.join(onset, on="subject_id", how="anti").height < 0.1 * drug.height


@pytest.mark.slow
def test_a_procedure_sets_the_length_of_a_stay(simulated):
    visits = simulated.filter(pl.col("visit_id").is_not_null()).group_by("subject_id", "visit_id")
    stays = visits.agg(
        days=(pl.col("time").max() - pl.col("time").min()).dt.total_seconds() / 86_400,
        dialysis=(pl.col("code") == DIALYSIS).any(),
    )
    assert (stays.filter("dialysis")["days"] > 3).mean() > 0.97
    assert (stays.filter(~pl.col("dialysis"))["days"] < 1).mean() > 0.97


@pytest.mark.slow
def test_patients_keep_their_hours(simulated):
    starts = simulated.filter(pl.col("code").str.starts_with("VISIT_START")).sort("subject_id", "time")
    hours = starts.with_columns(hour=pl.col("time").dt.hour().cast(pl.Int32))
    moved = hours.select((pl.col("hour").diff().over("subject_id")).abs().drop_nulls())
    assert (moved["hour"] <= 1).mean() > 0.8
    assert hours["hour"].n_unique() >= 10
