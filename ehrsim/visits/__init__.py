"""The codec: events <-> visit sequences (`encode`, `decode`) <-> packed batches in bins (`scales`, `packing`)."""

from ehrsim.visits.decode import decode
from ehrsim.visits.encode import EncodeReport, encode
from ehrsim.visits.sequences import CONTINUES, MISSING, NO_VISIT, Sequences

__all__ = ["CONTINUES", "MISSING", "NO_VISIT", "EncodeReport", "Sequences", "decode", "encode"]
