"""Which page of the documentation explains an error: what messages end with.

Paths are those of a checkout, which every installation starts from: they open in an editor without a network. Where a
site is published, its address goes in front of `_PAGES`, and all messages follow.
"""

from __future__ import annotations

from typing import Final

_PAGES: Final = "docs/"

SHAPES: Final = f"{_PAGES}substrate.md#one-example-and-many"
"""Inputs and states of another shape than the system takes."""

METHODS: Final = f"{_PAGES}substrate.md#three-methods"
"""Methods of a system of one's own that are missing, or return what they must not."""

CIRCUIT: Final = f"{_PAGES}traps.md#a-circuit-has-no-operating-point"
"""Floating nodes, sources that contradict one another, currents that nothing limits."""

NOT_AT_REST: Final = f"{_PAGES}traps.md#a-phase-does-not-come-to-rest"
"""Equilibria that did not converge: too few steps, too strong a nudge, an unstable fixed point."""

NO_DERIVATIVE: Final = f"{_PAGES}traps.md#an-equilibrium-has-no-derivative"
"""States that jump, or are tied."""

RULES: Final = f"{_PAGES}choosing.md#a-rule"
"""What a system or a solver cannot do, and the rules that do without."""

STRENGTH: Final = f"{_PAGES}choosing.md#a-strength"
"""Nudges too faint or too strong for what is measured."""

BENCH: Final = f"{_PAGES}machine.md#when-it-stops"
"""Knobs out of range, parameters that cannot be held, machines that do not settle."""
