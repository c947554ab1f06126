"""The theorems behind the rules, as checks that anyone can run on a system of their own."""

from theory_checks.conformance import check_substrate
from theory_checks.report import BrokenLawError, Law, Report
from theory_checks.sealed import SealedSubstrate, SealedSystem, SealError
from theory_checks.system_check import check_system
from theory_checks.testing import laws_of

__all__ = [
    "BrokenLawError",
    "Law",
    "Report",
    "SealError",
    "SealedSubstrate",
    "SealedSystem",
    "check_substrate",
    "check_system",
    "laws_of",
]
