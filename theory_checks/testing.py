"""Every law as a test of its own, in a test file of the user's."""

from __future__ import annotations

import functools
import re
import unittest
from collections.abc import Callable
from typing import Any

from jaxtyping import PyTree

from substrates.substrate import Substrate
from theory_checks.conformance import CHECKS, hold
from theory_checks.entrance import case_for
from theory_checks.report import BrokenLawError, Law, Report


def laws_of(substrate: Substrate | Callable[[], Substrate], x: PyTree, y: PyTree, **options: Any) -> type:
    """A class of tests, one for each law, for pytest to collect:

        TestSpringChain = laws_of(SpringChain(jnp.array([1.0, 2.0])), x, y)

    A test is called by its law (`test_reciprocity_of_the_force`) and fails with a `BrokenLawError`, which says what
    was measured, and where to look; it is skipped, with the reason, where the law says nothing about the system. What
    the tests of a class share is computed once, when the first of them runs.

    Args:
        substrate: the system, or a function that builds it when the first test runs.
        x, y, options: as of `check_substrate`.
    """

    @functools.cache
    def case() -> Any:
        system = substrate if isinstance(substrate, Substrate) else substrate()
        return case_for(system, x, y, **options)

    @functools.cache
    def found(index: int) -> list[Law]:
        return hold(CHECKS[index], case())

    tests = {
        f"test_{_as_name(name)}": _test(name, functools.partial(found, index))
        for index, check in enumerate(CHECKS)
        for name in check.names
    }
    return type("TestLaws", (), {"__doc__": "The laws of a substrate, each a test.", **tests})


def _test(name: str, found: Callable[[], list[Law]]) -> Callable[[Any], None]:
    def test(self: Any) -> None:
        laws = [law for law in found() if law.name == name]
        broken = tuple(law for law in laws if law.verdict == "fails")
        if broken:
            raise BrokenLawError(str(Report(f"broken: {name}", broken)))
        if all(law.verdict == "does not apply" for law in laws):
            raise unittest.SkipTest(laws[0].compared if laws else "The system has another law in its place.")

    test.__doc__ = name
    return test


def _as_name(law: str) -> str:
    """The name of a law in letters, digits and underscores."""
    return re.sub(r"\W+", "_", law.replace("^", "")).strip("_")
