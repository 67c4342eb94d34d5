"""Visit sequences: the records of many patients as flat arrays of steps and events, nothing padded, nothing dense."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MISSING = np.iinfo(np.int64).min
"""No such time, visit, length or duration."""

CONTINUES = -1
"""Kind of a step that continues the stay of an earlier one."""
NO_VISIT = 0
"""Kind of a step whose events belong to no visit."""

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]


class Sequences(NamedTuple):
    """The records of P patients in M steps with E events. Times are whole seconds since 1970-01-01 (wall clock).

    Ragged parts use offsets: the steps of patient p are `step_offsets[p] : step_offsets[p + 1]`, in time order; the
    events of step m are `event_offsets[m] : event_offsets[m + 1]`, sorted by entry, then offset.
    """

    subject: Int64
    """(P,) subject ids."""
    birth: Int64
    """(P,) time of birth, or MISSING; `death` and `end` (of observation) likewise."""
    death: Int64
    end: Int64
    static_offsets: Int64
    """(P + 1,)"""
    statics: Int32
    """Indices into the vocabulary's statics."""
    step_offsets: Int64
    """(P + 1,)"""
    time: Int64
    """(M,) anchor of the step: the start of its visit, or its first event."""
    kind: Int32
    """(M,) visit type by vocabulary index, NO_VISIT or CONTINUES."""
    visit: Int64
    """(M,) visit id, or MISSING."""
    length: Int64
    """(M,) length of the visit in seconds on the step that starts it, MISSING where no end is recorded."""
    end_value: Float32
    """(M,) numeric value of the visit's end event, NaN where none."""
    event_offsets: Int64
    """(M + 1,)"""
    entry: Int32
    """(E,) vocabulary index."""
    offset: Int64
    """(E,) seconds from the anchor of the step."""
    value: Float32
    """(E,) numeric value as recorded, NaN where none."""
    duration: Int64
    """(E,) seconds from the event to its end, MISSING where none."""

    @property
    def patients(self) -> int:
        """Number of patients."""
        return len(self.subject)

    def patient_of_step(self) -> Int64:
        """(M,) the patient each step belongs to."""
        return np.repeat(np.arange(self.patients), np.diff(self.step_offsets))

    def step_of_event(self) -> Int64:
        """(E,) the step each event belongs to."""
        return np.repeat(np.arange(len(self.time)), np.diff(self.event_offsets))

    def select(self, patients: Int64) -> Sequences:
        """The records of some patients, in the order given."""
        static_rows, static_offsets = _ragged_take(self.static_offsets, patients)
        steps, step_offsets = _ragged_take(self.step_offsets, patients)
        events, event_offsets = _ragged_take(self.event_offsets, steps)
        return Sequences(
            subject=self.subject[patients],
            birth=self.birth[patients],
            death=self.death[patients],
            end=self.end[patients],
            static_offsets=static_offsets,
            statics=self.statics[static_rows],
            step_offsets=step_offsets,
            time=self.time[steps],
            kind=self.kind[steps],
            visit=self.visit[steps],
            length=self.length[steps],
            end_value=self.end_value[steps],
            event_offsets=event_offsets,
            entry=self.entry[events],
            offset=self.offset[events],
            value=self.value[events],
            duration=self.duration[events],
        )


def _ragged_take(offsets: Int64, chosen: Int64) -> tuple[Int64, Int64]:
    """Positions of the items of the chosen lists, one list after another, and the new offsets."""
    lengths = (offsets[1:] - offsets[:-1])[chosen]
    new_offsets = offsets_of(lengths)
    positions = np.arange(new_offsets[-1]) + np.repeat(offsets[:-1][chosen] - new_offsets[:-1], lengths)
    return positions, new_offsets


def offsets_of(lengths: Int64) -> Int64:
    """Offsets of consecutive lists of the given lengths."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
