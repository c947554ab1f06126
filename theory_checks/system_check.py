"""The conformance kit of physical systems: which laws a system on the bench obeys, by the five verbs alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from learning.calibration import calibrate
from learning.probing import Experiment
from substrates.laboratory.system import LaboratoryError, PhysicalSystem
from substrates.substrate import Cost
from theory_checks import laws_of_systems as laws
from theory_checks.hints import hinted
from theory_checks.report import Report, broken

Array = np.ndarray


def check_system(
    system: PhysicalSystem,
    x: Float[Array, "*copies inputs"],
    y: Float[Array, "*copies outputs"],
    *,
    cost: Cost | None = None,
    compliance: Float[Array, "knobs"] | float = 1.0,
    steps: int = 3,
    seed: int = 0,
) -> Report:
    """Holds a physical system against the laws that agnostic equilibrium propagation rests on.

    It uses the five verbs and nothing else, at one input and target. Bounds follow from the noise that `calibrate`
    measures; where noise hides what a law says, it does not apply, with the reason. The system is left as it was found.

    Args:
        system: on the bench.
        x, y: input and target as its clamp and nudge take them: of one example, or of one for each copy.
        cost: what the nudge adds, beta cost(output, target); by default `SquaredError`, a spring.
        compliance: how soft the knobs are relative to one another, one number or shape (knobs,).
        steps: of learning, over which the mean cost must not rise.
        seed: of the directions that are tried.

    Returns a `Report`, which prints as a table and can `raise_if_failed()`.
    Raises ValueError for arguments that do not fit. A system that shows what is no number breaks the law "readings".

    Source: Scellier, Mishra, Bengio and Ollivier 2022, arXiv 2205.15021.
    """
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: wanted a whole number from 1, got {steps!r}")
    name = f"{type(system).__name__}: {system.spec.knobs.size} knobs"
    try:
        calibration = calibrate(system, x, y, cost=cost, compliance=compliance, seed=seed)
        softness = np.broadcast_to(np.asarray(compliance, float), (system.spec.knobs.size,))
        with Experiment(system) as experiment:
            experiment.noise = calibration.hold_error
            trial = laws.Trial(experiment, calibration, np.asarray(x, float), np.asarray(y, float), softness)
            system.clamp(x)
            found = [*laws.calibrated(trial), *laws.verbs(trial), *laws.learning(trial, steps)]
    except LaboratoryError as error:
        law = broken("readings", f"Readings are numbers, and the system settles: {error}")
        return Report(name, (hinted(law),))
    return Report(f"{calibration.system}, beta = {calibration.beta:.3g}", tuple(map(hinted, found)))
