"""De-identification on import, as `docs/de-identification.md` tells it: only what a list allows comes through.

`policy` is what a user may choose, `allowed` the lists, `pseudonyms` the ids, `times` dates and ages, `rare` codes of
few patients, `residual` the last look for identifiers, `disclosure` and `report` what is told of the result, and
`discretion` keeps values of the source out of messages. `Deidentifier` puts them to work.
"""

from ehrsim.importers.deidentification.deidentifier import Deidentifier
from ehrsim.importers.deidentification.policy import SAFE_HARBOR, Policy, load_policy
from ehrsim.importers.deidentification.report import DeidentificationReport

__all__ = ["SAFE_HARBOR", "DeidentificationReport", "Deidentifier", "Policy", "load_policy"]
