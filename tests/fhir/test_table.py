from datetime import datetime

import numpy as np
import orjson
import polars as pl

from ehrsim.fhir import table


def test_times_are_wall_clock_dateTimes_with_a_fraction_only_where_there_is_one():
    times = [
        datetime(2015, 3, 4, 10, 20, 30),
        datetime(2015, 3, 4, 10, 20, 30),
        None,
        datetime(1800, 1, 1),
        datetime(2299, 12, 31, 23, 59, 59, 250_000),
        datetime(2020, 2, 29, 0, 0, 0, 1),
    ]
    assert table.date_times(pl.Series(times, dtype=pl.Datetime("us"))).to_list() == [
        "2015-03-04T10:20:30Z",
        "2015-03-04T10:20:30Z",
        None,
        "1800-01-01T00:00:00Z",
        "2299-12-31T23:59:59.250Z",
        "2020-02-29T00:00:00.000001Z",
    ]


def test_numbers_have_the_shortest_digits_of_a_float32():
    draw = np.random.default_rng(3)
    values = np.concatenate(
        [
            np.array([0.1, 36.9, 100, -0.0, 7.1, 1e-7, 3e38, 16777216, -2.5], dtype=np.float32),
            draw.standard_normal(5_000).astype(np.float32) * np.float32(10) ** draw.integers(-8, 12, 5_000),
        ]
    )
    values = values.astype(np.float32)
    numbers = table.numbers(pl.Series(values, dtype=pl.Float32)).to_list()
    assert numbers[:5] == ["0.1", "36.9", "100", "0", "7.1"]
    read = [orjson.loads(number) for number in numbers]
    assert np.array_equal(np.array(read, dtype=np.float64).astype(np.float32), values)
    assert all(len(number.replace("-", "").split("e")[0].replace(".", "").strip("0")) <= 9 for number in numbers)
