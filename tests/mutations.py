"""Breaks the package on purpose, one line at a time, and shows that a named test catches each break.

Run it as ``python tests/mutations.py`` (or with words that select mutations by name; ``--jobs 2`` for two at once). It
changes temporary copies of the packages only. Exit status 1 if a mutation survives, or if its line is no longer there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
COPIED = ("substrates", "learning", "theory_checks", "tests", "pyproject.toml")


class Mutation(NamedTuple):
    """What is broken: `before` in `path` becomes `after`; and the test that must fail."""

    name: str
    path: str
    before: str
    after: str
    test: str


PROPAGATION = "tests/learning/test_equilibrium_propagation.py"
CONTRACT = "tests/test_contract.py"
SOLVER = "tests/substrates/test_generic_solver.py"
LIMITED = "tests/substrates/test_limited.py"
UNITS = "tests/substrates/test_units.py"
MULTIGRID = "tests/substrates/test_multigrid.py"
GRID = "tests/substrates/test_elastic_grid.py"
ISING_GRID = "tests/substrates/test_ising_grid.py"
KRYLOV = "tests/substrates/test_krylov.py"
WRAPPER = "tests/substrates/test_wrapper.py"
ELASTIC_UNITS = "tests/substrates/test_elastic_units.py"
QUANTUM_UNITS = "tests/substrates/test_quantum_units.py"
OSCILLATOR_UNITS = "tests/substrates/test_quantum_oscillator_units.py"
IN_TIME_STEPS = "tests/substrates/test_discrete_time.py"
IN_TIME = "tests/learning/test_in_time.py"
CONTINUAL = "tests/learning/test_continual.py"
RECURRENT = "tests/substrates/test_recurrent.py"
HOMEOSTASIS = "tests/learning/test_homeostasis.py"
DRIVEN = "tests/substrates/test_driven.py"
SKEW = "tests/substrates/test_skew_gradient.py"
PROBE = "tests/substrates/test_force_probe.py"
WARM_STARTS = "tests/substrates/test_warm_starts.py"
LEARNING = "tests/theory_checks/test_theorems_of_learning.py"
PHYSICS = "tests/theory_checks/test_theorems_of_physics.py"
EXPLORER = "tests/test_explorer.py"
PICTURES = "tests/test_style.py"
DEVICES = "tests/learning/test_devices.py"
COLUMNS = "tests/learning/test_columns.py"
CONFORMANCE = "tests/theory_checks/test_conformance.py"
STRATEGIES = "tests/theory_checks/test_strategies.py"
FAULTS = "tests/theory_checks/test_faults.py::test_the_law_that_names_a_fault_finds_it_and_says_where_to_look"
BFLOAT16 = "tests/substrates/test_bfloat16.py"
ROUNDING = "tests/learning/test_rounding.py"
MUTATIONS = (
    Mutation(
        "judge a Hopfield network by products in bfloat16",
        "substrates/classical/hopfield/block_descent.py",
        "return carry if self.rough is None else self.lifted(carry[0])",
        "return carry",
        BFLOAT16 + "::test_what_is_made_good_is_the_equilibrium_of_the_system_itself[hopfield-float64]",
    ),
    Mutation(
        "round all of a product where only its change may be",
        "substrates/wiring/near.py",
        "return self.sent + multiplied_roughly(self.rough.forward, u - self.u)",
        "return multiplied_roughly(self.rough.forward, u)",
        BFLOAT16 + "::test_what_rounding_leaves_is_a_part_of_the_change",
    ),
    Mutation(
        "leave errors as bfloat16 has them",
        "substrates/classical/predictive_coding/error_sweep.py",
        "above(reached.step, reached) | above(lost(reached), reached)",
        "jnp.asarray(False)",
        BFLOAT16 + "::test_what_is_made_good_is_the_equilibrium_of_the_system_itself[predictive coding-float64]",
    ),
    Mutation(
        "multiply in full what was to be rounded",
        "substrates/wiring/near.py",
        "ROUGH = jnp.bfloat16",
        "ROUGH = jnp.float32",
        BFLOAT16 + "::test_the_products_are_of_bfloat16_and_only_where_asked_for[hopfield]",
    ),
    Mutation(
        "take the best parameter for the worst",
        "learning/rounding.py",
        "return min(self.cosine, key=lambda path: self.cosine[path])",
        "return max(self.cosine, key=lambda path: self.cosine[path])",
        ROUNDING + "::test_the_worst_parameter_decides",
    ),
    Mutation(
        "compare a gradient in bfloat16 with itself",
        "learning/rounding.py",
        "exact = _numbers(wanted.gradient)",
        "exact = rounded",
        ROUNDING + "::test_a_nudge_that_drowns_in_rounding_is_refused_with_the_numbers",
    ),
    Mutation(
        "settle between bounds that leave no state",
        "substrates/solvers/generic.py",
        "status = Status.where(jnp.all(example.lower <= example.upper), found.status, Status.infeasible)",
        "status = found.status",
        "tests/test_written_methods.py::test_bounds_in_the_wrong_order_are_refused_by_the_kit",
    ),
    Mutation(
        "take a force rounded in two ways for one that a bound takes up",
        "substrates/solvers/newton.py",
        "held = clipped_by_bounds(state, seen.force, seen.wall, land.lower, land.upper)[1]",
        "held = seen.left != seen.force",
        f"{UNITS}::test_between_walls_the_start_does_not_decide_whether_it_settles",
    ),
    Mutation(
        "trust energies that round by more than a step gains",
        "substrates/solvers/newton.py",
        "fell | (calmed | worked) & ~settled",
        "fell | calmed & ~settled",
        SOLVER + "::test_an_energy_whose_terms_round_by_more_than_it_holds_settles",
    ),
    Mutation(
        "draw the free state where the nudged one is looked at",
        "substrates/pictures/exploration.py",
        "if held is None or not nudged else (held, free.state)",
        "if True else (held, free.state)",
        EXPLORER + "::test_a_nudge_draws_the_output_towards_its_target",
    ),
    Mutation(
        "scale the entry that was set",
        "substrates/pictures/exploration.py",
        "each[1] is not None):",
        "each[1] is None):",
        EXPLORER + "::test_factors_and_single_entries_of_parameters",
    ),
    Mutation(
        "explore parameters that are not physical",
        "substrates/pictures/exploration.py",
        "eqx.combine(turned, rest).constrained()",
        "eqx.combine(turned, rest)",
        EXPLORER + "::test_parameters_stay_physical",
    ),
    Mutation(
        "scrub from the last equilibrium instead of the start",
        "substrates/pictures/exploration.py",
        "looked_at, start = (free, None)",
        "looked_at, start = (free, free.state)",
        EXPLORER + "::test_a_relaxation_is_scrubbed_from_its_start",
    ),
    Mutation(
        "a CPU beside a GPU takes factorisations at once",
        "substrates/solvers/batching.py",
        "    if chosen is None:\n        return",
        "    if True:\n        return",
        "tests/test_batching.py::test_a_cpu_beside_an_accelerator_takes_them_in_turn_too",
    ),
    Mutation(
        "a session leaves products to the device",
        "substrates/session.py",
        'jax.config.update("jax_default_matmul_precision", "float32")',
        "pass",
        "tests/test_session.py::test_a_session_asks_for_whole_products_unless_others_were_chosen",
    ),
    Mutation(
        "let the host round what it is given",
        "substrates/solvers/host.py",
        "return np.dtype(dtype) in (np.float64, np.int64, np.uint64, np.complex128)",
        "return False",
        "tests/test_session.py::test_no_bit_is_lost_on_the_way_to_the_host",
    ),
    Mutation(
        "read colours pixel by pixel where they come plane by plane",
        "learning/cifar.py",
        "reshape(-1, *_SHAPE).transpose(0, 2, 3, 1))",
        "reshape(-1, 32, 32, 3))",
        "tests/learning/test_cifar.py::test_every_pixel_comes_back",
    ),
    Mutation(
        "as many spectra at once as factors",
        "substrates/solvers/batching.py",
        "SPECTRA_AT_ONCE = 2e4",
        "SPECTRA_AT_ONCE = AT_ONCE",
        "tests/test_batching.py::test_fewer_spectra_go_at_once",
    ),
    Mutation(
        "keep a legend whose words are others now",
        "substrates/pictures/exploration.py",
        "style.colour_limits(ax), style.legend_of(ax))",
        "style.colour_limits(ax))",
        EXPLORER + "::test_what_a_canvas_keeps_is_what_it_would_draw_anew",
    ),
    Mutation(
        "sum the nodes of a cell",
        "substrates/pictures/crowd.py",
        "/ np.maximum(count, 1), np.nan)",
        "/ 1, np.nan)",
        PICTURES + "::test_cells_show_the_mean_of_their_nodes",
    ),
    Mutation(
        "narrow the colours of pictures redrawn",
        "substrates/pictures/style.py",
        "artist.set_clim(min(ends), max(ends))",
        "artist.set_clim(max(ends[::2]), min(ends[1::2]))",
        PICTURES + "::test_redrawn_pictures_keep_one_colour_bar_and_widen_its_range",
    ),
    Mutation(
        "nudge both phases of a centred estimate one way",
        "theory_checks/case.py",
        "nudge, beta, -beta))",
        "nudge, beta, beta))",
        CONFORMANCE + "::test_three_methods_are_enough_to_pass_every_law",
    ),
    Mutation(
        "turn the wrong way in the equations of Cauchy and Riemann",
        "theory_checks/laws_of_capabilities.py",
        "turned - 1j * straight",
        "turned + 1j * straight",
        CONFORMANCE + "::test_three_methods_are_enough_to_pass_every_law",
    ),
    Mutation(
        "hold a batch against the sum of its examples",
        "theory_checks/laws_of_agreement.py",
        "sum(leaves) / case.size",
        "sum(leaves)",
        CONFORMANCE + "::test_three_methods_are_enough_to_pass_every_law",
    ),
    Mutation(
        "tell nothing of a hidden generator",
        "theory_checks/laws_of_promises.py",
        "    again = case.settle()\n",
        "    again = case.free\n",
        FAULTS + "[hidden randomness-chain]",
    ),
    Mutation(
        "take outputs for energies in the law of precision",
        "theory_checks/laws_of_promises.py",
        'shown["energy"] = case.free.energy',
        'shown["energy"] = case.shown',
        FAULTS + "[swallowed precision-chain]",
    ),
    Mutation(
        "start each example where it ends",
        "theory_checks/laws_of_promises.py",
        "np.roll(leaf, 1, axis=0)",
        "np.roll(leaf, 0, axis=0)",
        FAULTS + "[stale warm start-chain]",
    ),
    Mutation(
        "let inputs act by nothing",
        "theory_checks/laws_of_promises.py",
        "compared, max(changes), case.epsilon)]",
        "compared, max(changes), 0.0)]",
        FAULTS + "[ignored clamp-cells]",
    ),
    Mutation(
        "praise a relaxation that goes uphill",
        "theory_checks/laws_of_promises.py",
        "np.max((after - before)",
        "np.max((before - after)",
        FAULTS + "[uphill-chain]",
    ),
    Mutation(
        "draw magnitudes beyond their ranges",
        "theory_checks/strategies/draws.py",
        "factor ** (self.spread *",
        "factor ** (2 * self.spread *",
        STRATEGIES + "::test_what_is_drawn_lies_where_it_should",
    ),
    Mutation(
        "draw numbers larger than asked for",
        "theory_checks/strategies/draws.py",
        "self._generator.uniform(-1.0, 1.0, shape) - 1)",
        "self._generator.uniform(-1.0, 1.0, shape) + 1)",
        STRATEGIES + "::test_what_is_drawn_lies_where_it_should",
    ),
    Mutation(
        "draw numbers above their interval",
        "theory_checks/strategies/draws.py",
        "(0.75 + self.spread",
        "(1.75 + self.spread",
        STRATEGIES + "::test_what_is_drawn_lies_where_it_should",
    ),
    Mutation(
        "nudge twice as strongly as asked for",
        "theory_checks/strategies/batches.py",
        "largest * part / 4",
        "largest * part / 2",
        STRATEGIES + "::test_nudges_have_both_signs_within_their_strength_and_shrink_to_none",
    ),
    Mutation(
        "measure a batch by its first example",
        "theory_checks/theorems/measured.py",
        "{n: v[k] for",
        "{n: v[0] for",
        PHYSICS + "::test_batches_are_taken_example_by_example",
    ),
    Mutation(
        "turn an inequality round",
        "theory_checks/theorems/measured.py",
        "excess = one - other",
        "excess = other - one",
        PHYSICS + "::test_diode_complementarity",
    ),
    Mutation(
        "extrapolate to the wrong nudge",
        "theory_checks/theorems/measured.py",
        "(4 * found[1] - found[0]) / 3",
        "2 * found[1] - found[0]",
        PHYSICS + "::test_quantum",
    ),
    Mutation(
        "expect twice the order",
        "theory_checks/theorems/measured.py",
        "abs(found.power - order)",
        "abs(found.power - 2 * order)",
        LEARNING + "::test_orders_are_fitted_where_they_are_clear_of_the_noise",
    ),
    Mutation(
        "speak of systems of the other kind",
        "theory_checks/theorems/suitable.py",
        "substrate.conservative != energy",
        "substrate.conservative == energy",
        LEARNING + "::test_it_holds[bias-orders-circuit]",
    ),
    Mutation(
        "take the worst estimate for the nearest",
        "theory_checks/theorems/suitable.py",
        "np.argmin(np.where(np.isnan(errors)",
        "np.argmax(np.where(np.isnan(errors)",
        LEARNING + "::test_it_holds[equilibrium-propagation-circuit]",
    ),
    Mutation(
        "let an error stay for good",
        "theory_checks/theorems/suitable.py",
        "off = values[best] > case.resolution",
        "off = values[best] > 10",
        LEARNING + "::test_orders_are_fitted_where_they_are_clear_of_the_noise",
    ),
    Mutation(
        "halve no strength",
        "theory_checks/theorems/suitable.py",
        "[strength / ratio**k for",
        "[strength / ratio for",
        LEARNING + "::test_it_holds[bias-orders-circuit]",
    ),
    Mutation(
        "divide differences by half their step",
        "theory_checks/differences.py",
        "(up - down) / (2 * h)",
        "(up - down) / h",
        LEARNING + "::test_it_holds[equilibrium-propagation-circuit]",
    ),
    Mutation(
        "add two differences without their weights",
        "theory_checks/differences.py",
        "(4 * fine - coarse) / 3",
        "(4 * fine + coarse) / 3",
        LEARNING + "::test_it_holds[equilibrium-propagation-circuit]",
    ),
    Mutation(
        "take a direction twice as long for its size",
        "theory_checks/differences.py",
        "inner_product(gradient, towards),",
        "2 * inner_product(gradient, towards),",
        LEARNING + "::test_it_holds[equilibrium-propagation-circuit]",
    ),
    Mutation(
        "look at a part for what is elsewhere",
        "theory_checks/theorems/locality.py",
        "np.abs(read[:, ~acts])",
        "np.abs(read[:, acts])",
        LEARNING + "::test_it_holds[parameter-locality-circuit]",
    ),
    Mutation(
        "let parameters elsewhere count for nothing",
        "theory_checks/theorems/locality.py",
        "np.abs(slopes * parameters)[apart]",
        "np.abs(0 * slopes * parameters)[apart]",
        LEARNING + "::test_a_meter_that_reads_elsewhere_is_no_local_one",
    ),
    Mutation(
        "measure work from nowhere",
        "theory_checks/theorems/locality.py",
        "slope(theta, end) - slope(theta, start)",
        "slope(theta, end) + slope(theta, start)",
        LEARNING + "::test_it_holds[parameter-locality-circuit]",
    ),
    Mutation(
        "expect order one of centred nudges",
        "theory_checks/theorems/propagation.py",
        "centred_estimates(case)[1], 2)",
        "centred_estimates(case)[1], 1)",
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "bound the cost from below by the bound from above",
        "theory_checks/theorems/propagation.py",
        "(above - middle) / beta, free",
        "(middle - below) / beta, free",
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "turn the way of errors in time",
        "theory_checks/theorems/in_time.py",
        "lambda u: -u / rate",
        "lambda u: u / rate",
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "sum no updates in time",
        "theory_checks/theorems/in_time.py",
        "-np.cumsum(u, axis=0)",
        "-u",
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "turn a gradient in time",
        "theory_checks/theorems/in_time.py",
        "on_vectors(np.negative, tree)",
        "on_vectors(np.positive, tree)",
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "forget the ratio of rates of continual updates",
        "theory_checks/theorems/in_time.py",
        "- before) / (ratio * beta)",
        "- before) / beta",
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "halve the bias of a vector field",
        "theory_checks/theorems/without_energy.py",
        "2 * odd, inverse, slopes",
        "odd, inverse, slopes",
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "transpose no response of a vector field",
        "theory_checks/theorems/without_energy.py",
        '"bji,bjk,',
        '"bij,bjk,',
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "halve the asymmetric part of a Jacobian",
        "theory_checks/theorems/without_energy.py",
        "np.mean(2 * np.sum(odd**2",
        "np.mean(np.sum(odd**2",
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "lock in on another period",
        "theory_checks/theorems/holomorphy.py",
        "_cauchy(case, case.beta, period)",
        "_cauchy(case, case.beta, period - 3)",
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "expect a lag of first order only",
        "theory_checks/theorems/holomorphy.py",
        "late, 2, 0.0",
        "late, 1, 0.0",
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "turn the agnostic step",
        "theory_checks/theorems/agnostic.py",
        "/ (-float(control.epsilon) * beta)",
        "/ (float(control.epsilon) * beta)",
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "leave the limit of agnostic steps untaken",
        "theory_checks/theorems/agnostic.py",
        "return (8 * quarter - 6 * half + whole) / 3",
        "return whole",
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "measure the metric of states for that of parameters",
        "theory_checks/theorems/agnostic.py",
        "jax.hessian(well, argnums=1)",
        "jax.hessian(well, argnums=0)",
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "leave the free energy out of the contrastive objective",
        "theory_checks/theorems/objectives.py",
        "float(np.mean(high - low))",
        "float(np.mean(high))",
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "let stiff outputs move like soft ones",
        "theory_checks/theorems/objectives.py",
        "jnp.linalg.solve(chi, jax.grad",
        "jnp.matmul(chi, jax.grad",
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "nudge a distribution to both sides",
        "theory_checks/theorems/objectives.py",
        "surrogate(case, 0.0, case.beta, moved)",
        "surrogate(case, -case.beta, case.beta, moved)",
        LEARNING + "::test_it_holds",
    ),
    Mutation(
        "let a current flow into both ends of a diode",
        "theory_checks/theorems/circuits.py",
        "leaving[b] -= current",
        "leaving[b] += current",
        PHYSICS + "::test_diode_complementarity",
    ),
    Mutation(
        "let the energy of sweeps rise",
        "theory_checks/theorems/circuits.py",
        "energies[1:], energies[:-1], size, 1e-13",
        "energies[:-1], energies[1:], size, 1e-13",
        PHYSICS + "::test_coordinate_descent",
    ),
    Mutation(
        "rectify the outputs of a perceptron",
        "theory_checks/theorems/circuits.py",
        "wanted = np.maximum(wanted, 0) if layer < last else wanted",
        "wanted = np.maximum(wanted, 0)",
        PHYSICS + "::test_universal_approximation",
    ),
    Mutation(
        "leave one half out of second-order perturbation",
        "theory_checks/theorems/quantum_systems.py",
        "np.array([2 * excited @ part for part in parts])",
        "np.array([excited @ part for part in parts])",
        PHYSICS + "::test_quantum",
    ),
    Mutation(
        "take the second level for the first",
        "theory_checks/theorems/quantum_systems.py",
        "energies[1] - energies[0], 1e-8",
        "energies[2] - energies[0], 1e-8",
        PHYSICS + "::test_free_fermions",
    ),
    Mutation(
        "cool oscillators by heating",
        "theory_checks/theorems/quantum_systems.py",
        "coth = 1 / np.tanh(half / temperature)",
        "coth = np.tanh(half / temperature)",
        PHYSICS + "::test_gaussian",
    ),
    Mutation(
        "forget the temperature of an ensemble",
        "theory_checks/theorems/thermal.py",
        "softmax(-plain / system.temperature) @",
        "softmax(-plain) @",
        PHYSICS + "::test_gibbs",
    ),
    Mutation(
        "double the field's second order",
        "theory_checks/theorems/thermal.py",
        "** 2 / (2 * local)",
        "** 2 / local",
        PHYSICS + "::test_homogeneous_limits",
    ),
    Mutation(
        "forget a sign of the symplectic form",
        "theory_checks/theorems/dynamics.py",
        "((answer[1], -answer[0]))",
        "((answer[1], answer[0]))",
        PHYSICS + "::test_lagrangian_boundary",
    ),
    Mutation(
        "count the ends of a path like its middle",
        "theory_checks/theorems/dynamics.py",
        "2.0, 1.0) / self.net.step",
        "1.0, 1.0) / self.net.step",
        PHYSICS + "::test_lagrangian_boundary",
    ),
    Mutation(
        "let damping drive",
        "theory_checks/theorems/stationary.py",
        '1j * omega * number("onsite_damping")',
        '-1j * omega * number("onsite_damping")',
        PHYSICS + "::test_driven",
    ),
    Mutation(
        "forget the conjugate of an error",
        "theory_checks/theorems/stationary.py",
        "real - 1j * imaginary)",
        "real + 1j * imaginary)",
        PHYSICS + "::test_driven",
    ),
    Mutation(
        "turn the answer of a frequency",
        "theory_checks/theorems/stationary.py",
        "answer = lambda b: -(phases(b)",
        "answer = lambda b: (phases(b)",
        PHYSICS + "::test_natural_frequencies",
    ),
    Mutation(
        "turn the asymmetry of a response",
        "theory_checks/theorems/symmetries.py",
        "odd = -2 * show",
        "odd = 2 * show",
        PHYSICS + "::test_onsager_reciprocity",
    ),
    Mutation(
        "turn the gap of a feed-forward pass",
        "theory_checks/theorems/predictive.py",
        "gaps.append(0 * up if last else -up)",
        "gaps.append(0 * up if last else up)",
        PHYSICS + "::test_feed_forward_residual",
    ),
    Mutation(
        "count a sweep too many",
        "theory_checks/theorems/predictive.py",
        "for count in range(1, layers)]",
        "for count in range(1, layers + 1)]",
        PHYSICS + "::test_predictive_coding_kernel",
    ),
    Mutation(
        "take the least error for the noise",
        "theory_checks/orders.py",
        "np.sqrt(np.mean((betas * sizes)[-4:] ** 2))",
        "np.min(betas * sizes)",
        "tests/theory_checks/test_orders.py::test_a_sound_order_is_never_broken_by_noise",
    ),
    Mutation(
        "let an order of a half pass for one",
        "theory_checks/orders.py",
        "0.9 * order - 2 * found.error_bar",
        "0.4 * order - 2 * found.error_bar",
        "tests/theory_checks/test_orders.py::test_an_order_that_is_too_low_is_found",
    ),
    Mutation(
        "fit orders to noise",
        "theory_checks/orders.py",
        "CLEAN = 10",
        "CLEAN = 0.01",
        "tests/theory_checks/test_orders.py::test_a_sound_order_is_never_broken_by_noise",
    ),
    Mutation(
        "turn the implicit derivative in proofs",
        "theory_checks/proofs/algebra.py",
        "return -self.inverse * self.residual.diff(parameter)",
        "return self.inverse * self.residual.diff(parameter)",
        "tests/theory_checks/test_proofs.py::test_a_branch_moves_as_the_solved_one",
    ),
    Mutation(
        "double the means of noise in proofs",
        "theory_checks/proofs/algebra.py",
        "/ (2 * order))",
        "/ (order))",
        "tests/theory_checks/test_proofs.py::test_taylor_coefficients_and_means_of_noise",
    ),
    Mutation(
        "accept a margin that nobody knows the sign of",
        "theory_checks/proofs/proof.py",
        "if self.margin is not None and self.margin.is_nonnegative is not True:",
        "if self.margin is not None and self.margin.is_nonnegative is False:",
        "tests/theory_checks/test_proofs.py::test_a_margin_must_be_seen_not_to_be_negative",
    ),
    Mutation(
        "step in discrete time along the force before",
        "substrates/solvers/discrete_time.py",
        "force = substrate.total_force(moved, x, nudge)",
        "force = substrate.total_force(state, x, nudge)",
        "tests/substrates/test_discrete_time.py::test_prototypical_steps_are_those_of_the_recurrent_network",
    ),
    Mutation(
        "average four neighbours to twice their mean",
        "substrates/wiring/layers.py",
        "for i in (0, 1) for j in (0, 1)]) / 4",
        "for i in (0, 1) for j in (0, 1)]) / 2",
        "tests/substrates/test_wiring.py::test_average_pooling_of_a_kernel_with_any_sides",
    ),
    Mutation(
        "start from the lowest mode of couplings",
        "substrates/classical/oscillator/spectral.py",
        "values[-2]",
        "values[0]",
        "tests/substrates/test_spectral_starts.py::test_cosines_of_a_start_without_fields_are_the_nearest_to_the_couplings",
    ),
    Mutation(
        "let a drive of a path stand still for a step",
        "substrates/classical/trajectory/action.py",
        "jnp.stack([time, time + step])",
        "jnp.stack([time, time])",
        "tests/substrates/test_trajectory.py::test_a_driven_spring_repeats_with_the_amplitude_of_the_discrete_resonance",
    ),
    Mutation(
        "take steps of a path for short that are not",
        "substrates/classical/trajectory/action.py",
        "before - across - jnp.swapaxes(across, 1, 2) + after",
        "before + across + jnp.swapaxes(across, 1, 2) + after",
        "tests/substrates/test_trajectory.py::test_steps_too_long_for_the_motion_say_so",
    ),
    Mutation(
        "eliminate a path without pivots",
        "substrates/classical/trajectory/elimination.py",
        "panel, rest = panel[order], rest[order]",
        "panel, rest = panel, rest",
        "tests/substrates/test_trajectory.py::test_elimination_solves_what_dense_algebra_solves_where_parts_are_singular",
    ),
    Mutation(
        "open a loop where it is folded",
        "substrates/classical/trajectory/elimination.py",
        "none.at[0].add(swapped[-1])",
        "none.at[0].add(0 * swapped[-1])",
        "tests/substrates/test_trajectory.py::test_elimination_solves_what_dense_algebra_solves_where_parts_are_singular",
    ),
    Mutation(
        "bend a path the other way at its outputs",
        "substrates/classical/trajectory/newton.py",
        "lambda found: found - back(found)",
        "lambda found: found + back(found)",
        "tests/substrates/test_trajectory.py::test_a_linear_path_is_found_in_one_step_however_it_is_nudged",
    ),
    Mutation(
        "count the look at the start of a path as a step",
        "substrates/classical/trajectory/newton.py",
        "jnp.full((), -1, jnp.int32)",
        "jnp.zeros((), jnp.int32)",
        "tests/substrates/test_trajectory.py::test_a_linear_path_is_found_in_one_step_however_it_is_nudged",
    ),
    Mutation(
        "take a path that nothing decides for decided",
        "substrates/classical/trajectory/newton.py",
        "LOST = 1e-2",
        "LOST = 1e99",
        "tests/substrates/test_trajectory.py::test_what_nothing_decides_says_so",
    ),
    Mutation(
        "nudge an echo the other way",
        "substrates/classical/trajectory/initial_value.py",
        "total + (more - less)",
        "total + (less - more)",
        "tests/learning/test_echo.py::test_the_echo_is_the_gradient_of_leapfrog_to_eight_digits",
    ),
    Mutation(
        "nudge an echo by half a kick",
        "substrates/classical/trajectory/initial_value.py",
        "motion.momentum - jax.vmap(nudge)(",
        "motion.momentum - 0.5 * jax.vmap(nudge)(",
        "tests/learning/test_echo.py::test_the_echo_is_the_gradient_of_leapfrog_to_eight_digits",
    ),
    Mutation(
        "give the launch of an echo its whole weight",
        "substrates/classical/trajectory/initial_value.py",
        "jnp.where(k == 0, 0.5, 1.0)",
        "jnp.where(k == 0, 1.0, 1.0)",
        "tests/learning/test_echo.py::test_the_echo_is_the_gradient_of_leapfrog_to_eight_digits",
    ),
    Mutation(
        "show the velocity of an echo before its kick",
        "substrates/classical/trajectory/initial_value.py",
        "jax.grad(kinetic)(parameters, half)",
        "jax.grad(kinetic)(parameters, motion.momentum)",
        "tests/learning/test_echo.py::test_the_echo_is_the_gradient_of_leapfrog_to_eight_digits",
    ),
    Mutation(
        "forget the batch mean of echoes",
        "substrates/classical/trajectory/initial_value.py",
        "(system.step / len(states[0])).astype",
        "system.step.astype",
        "tests/learning/test_echo.py::test_the_echo_is_the_gradient_of_leapfrog_to_eight_digits",
    ),
    Mutation(
        "run back under the drive of the step before",
        "substrates/classical/trajectory/initial_value.py",
        "jax.grad(potential, (0, 1))(parameters, there, k)",
        "jax.grad(potential, (0, 1))(parameters, there, k + 1)",
        "tests/substrates/test_launched.py::test_ten_thousand_steps_are_retraced",
    ),
    Mutation(
        "take an echo that misses the launch for one that returns",
        "substrates/classical/trajectory/initial_value.py",
        "missed <= allowed",
        "missed <= 1 + allowed",
        "tests/learning/test_echo.py::test_friction_is_refused_and_would_teach_something_else",
    ),
    Mutation(
        "speak of degenerate levels where none is",
        "substrates/quantum/system.py",
        'if "zero_mode" not in ended or ',
        "if ",
        "tests/substrates/test_transverse_ising.py::test_how_small_a_gap_counts_as_degenerate_is_said_where_one_does",
    ),
    Mutation(
        "count kinds of endings that do not occur",
        "substrates/solvers/solver.py",
        "for name, number in ended.items() if number}",
        "for name, number in ended.items()}",
        "tests/substrates/test_transverse_ising.py::test_statuses_of_a_batch_are_counted_by_kind",
    ),
    Mutation(
        "take all the friction of a step before the positions move",
        "substrates/classical/trajectory/initial_value.py",
        "return half * self._kept + self.step",
        "return half + self.step",
        "tests/substrates/test_launched.py::test_friction_leaves_leapfrog_of_second_order",
    ),
    Mutation(
        "rub half a step twice as long",
        "substrates/classical/trajectory/initial_value.py",
        "jnp.exp(-self.friction * self.step / 2)",
        "jnp.exp(-self.friction * self.step)",
        "tests/substrates/test_launched.py::test_driven_pendulums_with_friction_move_as_an_independent_integrator_says",
    ),
    Mutation(
        "take an unstable leapfrog for a motion",
        "substrates/classical/trajectory/initial_value.py",
        "LIMIT = 4.0",
        "LIMIT = 40.0",
        "tests/substrates/test_launched.py::test_steps_too_long_for_the_motion_say_so",
    ),
    Mutation(
        "divide the echoes by beta",
        "learning/echo.py",
        "(2 * beta).astype",
        "beta.astype",
        "tests/learning/test_echo.py::test_its_bias_falls_as_beta_squared",
    ),
    Mutation(
        "read the force on a probe for that of the system",
        "substrates/force_probe.py",
        "return self.stiffness * self._stretch(state, x)",
        "return -self.stiffness * self._stretch(state, x)",
        f"{PROBE}::test_springs_show_the_force_and_the_contrast_its_gradient_up_to_one_over_their_stiffness",
    ),
    Mutation(
        "count the springs of a probe twice",
        "substrates/force_probe.py",
        "pull = ravel_pytree(state)[1](-self.stiffness * self._stretch(state, x))",
        "pull = ravel_pytree(state)[1](-2 * self.stiffness * self._stretch(state, x))",
        f"{PROBE}::test_springs_show_the_force_and_the_contrast_its_gradient_up_to_one_over_their_stiffness",
    ),
    Mutation(
        "let an inhibitor go down the energy",
        "substrates/classical/activator_inhibitor/network.py",
        "Concentrations(jnp.ones_like(state[0]), -jnp.ones_like(state[1]))",
        "Concentrations(jnp.ones_like(state[0]), jnp.ones_like(state[1]))",
        f"{SKEW}::test_the_flow_is_the_skew_gradient_of_the_energy",
    ),
    Mutation(
        "let an inhibitor diffuse backwards",
        "substrates/classical/activator_inhibitor/network.py",
        "apart(u) ** 2 - self.inhibitor_diffusion * apart(v) ** 2",
        "apart(u) ** 2 + self.inhibitor_diffusion * apart(v) ** 2",
        f"{SKEW}::test_it_rests_where_the_rates_of_fitzhugh_and_nagumo_vanish",
    ),
    Mutation(
        "call rest what the flow leaves",
        "substrates/skew_gradient.py",
        "Status.where(growth > 0, Status.unstable, status)",
        "Status.where(growth > 0, Status.converged, status)",
        f"{SKEW}::test_rest_is_called_so_only_where_the_flow_stays",
    ),
    Mutation(
        "take a centre for rest",
        "substrates/skew_gradient.py",
        "Status.where(growth < 0, status, Status.zero_mode)",
        "status",
        f"{SKEW}::test_rest_is_called_so_only_where_the_flow_stays",
    ),
    Mutation(
        "judge the stability of the energy in place of the flow",
        "substrates/skew_gradient.py",
        "jax.tree.map(lambda sign, f: sign * f, self.inner.signature(state), force)",
        "jax.tree.map(lambda sign, f: f, self.inner.signature(state), force)",
        f"{SKEW}::test_rest_is_called_so_only_where_the_flow_stays",
    ),
    Mutation(
        "conjugate the squares of amplitudes in the energy of a driven network",
        "substrates/classical/driven/network.py",
        "(real**2 - imaginary**2) / 2",
        "(real**2 + imaginary**2) / 2",
        f"{DRIVEN}::test_the_centred_contrast_of_amplitudes_is_exact_at_any_strength_of_a_constant_pull",
    ),
    Mutation(
        "dampers of a driven network that give off energy",
        "substrates/classical/driven/network.py",
        "energy = jnp.sum(square @ k) - omega @ (mixed @ g)",
        "energy = jnp.sum(square @ k) + omega @ (mixed @ g)",
        f"{DRIVEN}::test_the_centred_contrast_of_amplitudes_is_exact_at_any_strength_of_a_constant_pull",
    ),
    Mutation(
        "masses that count once per radian",
        "substrates/classical/driven/network.py",
        "m = omega**2 * matrix(self.inertance, self.mass)[None]",
        "m = omega * matrix(self.inertance, self.mass)[None]",
        f"{DRIVEN}::test_one_mass_on_a_spring_has_the_resonance_curve_of_textbooks",
    ),
    Mutation(
        "forget to conjugate what drives a network",
        "substrates/classical/driven/network.py",
        "jnp.concatenate([force[:, 0], -force[:, 1]], axis=1)",
        "jnp.concatenate([force[:, 0], force[:, 1]], axis=1)",
        f"{DRIVEN}::test_the_motion_solves_the_complex_balance_element_by_element",
    ),
    Mutation(
        "count mean squares twice",
        "substrates/classical/driven/network.py",
        "jnp.sum(shown**2, axis=(0, 1)) / 2 if",
        "jnp.sum(shown**2, axis=(0, 1)) if",
        f"{DRIVEN}::test_a_simulation_in_time_comes_to_the_same_motion_and_mean_squares",
    ),
    Mutation(
        "pull mean squares of a driven network the wrong way",
        "substrates/classical/driven/direct_solve.py",
        "matrices = eye[None] - self.between",
        "matrices = eye[None] + self.between",
        f"{DRIVEN}::test_strong_nudges_of_powers_settle_or_say_so",
    ),
    Mutation(
        "overlook a resonance without damping",
        "substrates/classical/driven/direct_solve.py",
        "Status.where(motions.singular, Status.zero_mode, status)",
        "status",
        f"{DRIVEN}::test_a_resonance_without_damping_is_said_and_one_of_high_quality_is_exact",
    ),
    Mutation(
        "take what rounding decides of a driven network for exact",
        "substrates/classical/driven/direct_solve.py",
        "found.converged & motions.imprecise(state, scale)",
        "found.converged & False",
        f"{DRIVEN}::test_a_resonance_without_damping_is_said_and_one_of_high_quality_is_exact",
    ),
    Mutation(
        "double nothing in a feed-forward pass",
        "substrates/classical/hopfield/base.py",
        "(2 if doubled else 1) * feed(coupling, before)",
        "feed(coupling, before)",
        f"{WARM_STARTS}::test_an_auto_encoder_starts_at_its_equilibrium",
    ),
    Mutation(
        "choose the start of higher energy",
        "substrates/classical/hopfield/base.py",
        "self.energy(doubled, x) < self.energy(plain, x)",
        "self.energy(doubled, x) > self.energy(plain, x)",
        f"{WARM_STARTS}::test_without_feedback_of_the_same_size_the_plain_pass_is_better",
    ),
    Mutation(
        "add what both sides send in place of comparing it",
        "substrates/classical/hopfield/base.py",
        "feed(up, a) - feed_back(down, c, b)",
        "feed(up, a) + feed_back(down, c, b)",
        f"{WARM_STARTS}::test_disagreement_is_what_both_sides_send",
    ),
    Mutation(
        "push the other way in discrete time",
        "substrates/solvers/discrete_time.py",
        "lambda s, f: s + jnp.asarray(self.dt, s.dtype) * f",
        "lambda s, f: s - jnp.asarray(self.dt, s.dtype) * f",
        f"{IN_TIME_STEPS}::test_energy_based_steps_descend_the_total_energy",
    ),
    Mutation(
        "forget the stiffness of prototypical steps",
        "substrates/solvers/discrete_time.py",
        "held = lambda f, k: f / jnp.where(k > 0, k, 1).astype(f.dtype)",
        "held = lambda f, k: f",
        f"{IN_TIME_STEPS}::test_prototypical_steps_are_those_of_the_recurrent_network",
    ),
    Mutation(
        "forget the bounds in discrete time",
        "substrates/solvers/discrete_time.py",
        "return moved if bounds is None else jax.tree.map(jnp.clip, moved, *bounds)",
        "return moved",
        f"{IN_TIME_STEPS}::test_prototypical_steps_are_those_of_the_recurrent_network",
    ),
    Mutation(
        "count updates in time from the last step on",
        "learning/in_time.py",
        "backwards = lambda tree: jax.tree.map(lambda leaf: leaf[::-1], tree)",
        "backwards = lambda tree: tree",
        f"{IN_TIME}::test_gradients_are_those_of_unrolled_steps",
    ),
    Mutation(
        "forget the batch mean of gradients in time",
        "learning/in_time.py",
        "lambda g, m: (g + m) / batch",
        "lambda g, m: g + m",
        f"{IN_TIME}::test_gradients_are_those_of_unrolled_steps",
    ),
    Mutation(
        "flip the sign of updates in time",
        "learning/in_time.py",
        "lambda leaf: -leaf / beta, contrast",
        "lambda leaf: leaf / beta, contrast",
        f"{IN_TIME}::test_they_differ_in_proportion_to_beta",
    ),
    Mutation(
        "climb in a continual phase",
        "learning/continual.py",
        "theta - rate / beta.astype(rate.dtype) * change",
        "theta + rate / beta.astype(rate.dtype) * change",
        f"{CONTINUAL}::test_a_phase_is_the_definition",
    ),
    Mutation(
        "drop the 1/beta of a continual phase",
        "learning/continual.py",
        "theta - rate / beta.astype(rate.dtype) * change",
        "theta - rate * change",
        f"{CONTINUAL}::test_a_phase_is_the_definition",
    ),
    Mutation(
        "move parameters with a negative nudge as with a positive one",
        "learning/continual.py",
        "plus, minus = jax.tree.map(either, after, states), jax.tree.map(either, states, after)",
        "plus, minus = after, states",
        f"{CONTINUAL}::test_negative_and_random_signs",
    ),
    Mutation(
        "start every continual step at the free state",
        "learning/continual.py",
        "return split_parameters(changed.constrained())[0], after, strengths",
        "return split_parameters(changed.constrained())[0], states, strengths",
        f"{CONTINUAL}::test_a_phase_is_the_definition",
    ),
    Mutation(
        "move states with the parameters of the start",
        "learning/continual.py",
        "0, now, solver, x, nudge, states, keys)",
        "0, system, solver, x, nudge, states, keys)",
        f"{CONTINUAL}::test_a_phase_is_the_definition",
    ),
    Mutation(
        "leave moved parameters unphysical",
        "learning/continual.py",
        "changed.constrained()",
        "changed",
        f"{CONTINUAL}::test_parameters_stay_physical_and_the_given_ones_stay",
    ),
    Mutation(
        "stop a predictive coding network where errors are absolutely small",
        "substrates/classical/predictive_coding/error_sweep.py",
        "enough = lambda k, d, h: jnp.maximum(part * jnp.abs(d), eps * net.largest(k, h))",
        "enough = lambda k, d, h: part",
        "tests/substrates/test_predictive_coding.py::test_activities_scale_with_the_input_and_no_test_notices",
    ),
    Mutation(
        "forget what an activity is large against",
        "substrates/classical/predictive_coding/projected_gradient.py",
        "jnp.full_like(a, net.largest(k, a))",
        "jnp.ones_like(a)",
        "tests/substrates/test_predictive_coding.py::test_activities_scale_with_the_input_and_no_test_notices",
    ),
    Mutation(
        "judge every layer of a Hopfield network by the strongest",
        "substrates/classical/hopfield/layers.py",
        "    return tuple(sizes)",
        "    return tuple(0 * size + sum(jnp.max(other) for other in sizes) for size in sizes)",
        "tests/substrates/test_hopfield.py::test_weak_layers_settle_beside_strong_ones",
    ),
    Mutation(
        "rest on a saddle",
        "substrates/classical/hopfield/block_descent.py",
        "saddles = ~layers.convex(carry[0])",
        "saddles = layers.convex(carry[0]) & False",
        "tests/substrates/test_hopfield.py::test_a_cue_without_overlap_does_not_rest_on_the_saddle",
    ),
    Mutation(
        "take slow for still",
        "substrates/classical/hopfield/layers.py",
        "(change > level) | (change**2 > reach * level * (before - change))",
        "change > level",
        "tests/substrates/test_hopfield.py::test_a_network_that_creeps_is_right_or_says_so",
    ),
    Mutation(
        "repair a force without an energy the wrong way",
        "substrates/adjoint.py",
        "lambda mu, j, t: mu - (j - t)",
        "lambda mu, j, t: mu + (j - t)",
        f"{RECURRENT}::test_the_bias_of_equilibrium_propagation_is_the_predicted_one_and_the_repair_removes_it",
    ),
    Mutation(
        "forget that activities move less than what units feel",
        "substrates/classical/recurrent/network.py",
        "(slope(self.activation, u) * p for u, p in",
        "(0 * u + p for u, p in",
        f"{RECURRENT}::test_tied_weights_are_a_hopfield_network",
    ),
    Mutation(
        "learn from a fixed point that the flow leaves",
        "substrates/solvers/anderson.py",
        "unstable | (balanced & ~stays)",
        "unstable & (balanced & ~stays)",
        f"{RECURRENT}::test_a_fixed_point_that_the_flow_leaves_is_unstable_and_no_rule_learns_from_it",
    ),
    Mutation(
        "lose the squares beside the diagonal of a Lanczos iteration",
        "substrates/solvers/stability.py",
        "jnp.where(k > 0, _over(beside**2, pivot), 0.0)",
        "jnp.where(k > 0, 0 * beside, 0.0)",
        f"{RECURRENT}::test_contraction_is_seen_where_it_is",
    ),
    Mutation(
        "learn from an energy that overflows",
        "substrates/solvers/solver.py",
        "lost = ended & ~jnp.isfinite(energy)",
        "lost = jnp.zeros((), bool)",
        "tests/substrates/test_arguments.py::test_energies_that_no_number_holds_are_not_finite_and_nothing_is_tried_in_vain",
    ),
    Mutation(
        "go on with numbers that are none",
        "substrates/classical/resistor/newton.py",
        "going = found.positive & (shift >= 0)  # and not NaN",
        "going = found.positive",
        "tests/substrates/test_arguments.py::test_energies_that_no_number_holds_are_not_finite_and_nothing_is_tried_in_vain",
    ),
    Mutation(
        "resume with any optimiser",
        "learning/closures.py",
        "parts = [*constants, *(",
        "parts = [*(",
        "tests/learning/test_resume.py::test_optimisers_are_described_alike_where_they_are_alike_and_only_there",
    ),
    Mutation(
        "call optimisers that differ the same",
        "learning/closures.py",
        "differing = [setting for setting in settings if setting not in others[name]]",
        "differing = []",
        "tests/learning/test_resume.py::test_optimisers_differ_in_words",
    ),
    Mutation(
        "look at no optimiser",
        "learning/run_folder.py",
        """(recorded.get(OPTIMISER) or {}).get("optax") != (""",
        """(recorded.get(OPTIMISER) or {}).get("optax") is not (""",
        "tests/learning/test_resume.py::test_another_optimiser_is_refused",
    ),
    Mutation(
        "forget what came after the last checkpoint when a run is resumed",
        "learning/run_folder.py",
        "return [math.nan] * epochs, 0.0, summed_up",
        "return [math.nan] * epochs, 0.0, 0.0",
        "tests/learning/test_resume.py::test_seconds_after_the_last_checkpoint_are_kept_over_a_resume",
    ),
    Mutation(
        "forget the seconds after the last checkpoint",
        "learning/run_folder.py",
        "max(float(total), summed_up)",
        "float(total)",
        "tests/learning/test_load_run.py::test_a_loaded_run_took_the_seconds_that_the_run_reported",
    ),
    Mutation(
        "forget how far from the origin positions are rounded",
        "substrates/classical/elastic/network.py",
        "jnp.abs(self.rest_length)), extent / 8)",
        "jnp.abs(self.rest_length)), extent / 32)",
        "tests/substrates/test_elastic_learning.py::test_small_nudges_of_a_wide_lattice_are_found_beside_the_rounding_of_its_positions",
    ),
    Mutation(
        "judge what a few nodes feel by the rounding of all",
        "substrates/classical/elastic/equilibrium.py",
        "flattens = ((at.uneven <= 0.81 * walk.uneven) | evens) &",
        "flattens = (at.uneven <= 0.81 * walk.uneven) &",
        "tests/substrates/test_elastic_learning.py::test_small_nudges_of_a_wide_lattice_are_found_beside_the_rounding_of_its_positions",
    ),
    Mutation(
        "bring outputs nearer through a wall",
        "substrates/solvers/generic.py",
        "nearer = jnp.where(blocked, 0, nearer)",
        "nearer = jnp.where(blocked, nearer, nearer)",
        f"{SOLVER}::test_a_pin_that_bounds_cannot_meet_is_infeasible",
    ),
    Mutation(
        "turn singular values against the vectors",
        "substrates/solvers/spectra.py",
        """"mk,mn,kn->k", left.conj(), tangents[0], right.conj())""",
        """"mk,mn,kn->k", left.conj(), tangents[0], right[::-1].conj())""",
        "tests/test_batching.py::test_spectra_of_a_batch_have_derivatives_of_both_modes",
    ),
    Mutation(
        "turn eigenvectors the other way",
        "substrates/solvers/spectra.py",
        "1 / (values[None] - values[:, None] + one) - one",
        "1 / (values[:, None] - values[None] + one) - one",
        "tests/test_batching.py::test_eigenvectors_of_a_batch_have_derivatives_of_both_modes",
    ),
    Mutation(
        "leave the nudged steps of several devices to the compiler",
        "learning/continual.py",
        "after = by_devices(_nudged, len(output), (None, None, *axes), 0, now, solver, x, nudge, states, keys)",
        "after = _nudged(now, solver, x, nudge, states, keys)",
        f"{DEVICES}::test_nudged_steps_of_parameters_that_move_are_shared_like_free_phases",
    ),
    Mutation(
        "resume with a batch of one's own",
        "learning/training.py",
        """recorded.get("batch_size", usual)""",
        "usual",
        f"{DEVICES}::test_the_default_batch_of_fit_is_rounded_up_and_resumed_on_other_devices",
    ),
    Mutation(
        "do not record the batch that devices asked for",
        "learning/cli.py",
        """settings["batch_size"] = asked["batch_size"] = shared""",
        """settings["batch_size"] = shared""",
        f"{DEVICES}::test_the_default_batch_is_rounded_up_recorded_and_resumed_on_other_devices",
    ),
    Mutation(
        "take a centre for a rest",
        "substrates/solvers/stability.py",
        "jnp.where(turns, -rounding, rounding)",
        "jnp.where(turns, rounding, rounding)",
        f"{SOLVER}::test_a_centre_which_the_flow_circles_for_ever_is_no_rest",
    ),
    Mutation(
        "take every motion that neither grows nor fades for a circle",
        "substrates/solvers/stability.py",
        "jnp.where(turns, -rounding, rounding)",
        "-rounding",
        f"{SOLVER}::test_a_centre_which_the_flow_circles_for_ever_is_no_rest",
    ),
    Mutation(
        "give one weight of a pair the step of both",
        "substrates/classical/recurrent/network.py",
        "couplings[i] = couplings[j] = mean_of(",
        "couplings[i] = mean_of(",
        f"{RECURRENT}::test_same_updates_align_weights_by_the_law_of_kolen_and_pollack",
    ),
    Mutation(
        "penalise the symmetric part of a Jacobian",
        "learning/homeostasis.py",
        "jnp.mean(size - trace)",
        "jnp.mean(size + trace)",
        f"{HOMEOSTASIS}::test_the_loss_is_the_antisymmetric_part_of_the_jacobian",
    ),
    Mutation(
        "let the homeostatic loss grow with the number of variables",
        "learning/homeostasis.py",
        " / jnp.asarray(n, size.dtype)",
        "",
        f"{HOMEOSTASIS}::test_the_loss_is_the_antisymmetric_part_of_the_jacobian",
    ),
    Mutation(
        "turn the imaginary part of what moved states show",
        "substrates/substrate.py",
        "jax.tree.map(jax.lax.complex, total, imaginary)",
        "jax.tree.map(lambda a, b: jax.lax.complex(a, -b), total, imaginary)",
        f"{HOMEOSTASIS}::test_holomorphic_nudges_leave_the_bias_of_asymmetry_and_the_repair_removes_that",
    ),
    Mutation(
        "turn the sign of error neurons",
        "substrates/classical/recurrent/predictive_coding.py",
        "tuple(e - miss for e, miss in",
        "tuple(miss - e for e, miss in",
        f"{HOMEOSTASIS}::test_error_neurons_learn_by_feedback_alignment_which_is_backpropagation_where_weights_are_tied",
    ),
    Mutation(
        "flip the sign of beta",
        "learning/contrastive.py",
        "beta = jnp.asarray(rule.beta, shown.dtype)",
        "beta = -jnp.asarray(rule.beta, shown.dtype)",
        f"{PROPAGATION}::test_each_variant_is_the_gradient_of_its_surrogate",
    ),
    Mutation(
        "drop the 1/beta",
        "learning/contrastive.py",
        "lambda leaf: leaf / jnp.asarray(gap, shown.dtype)",
        "lambda leaf: leaf",
        f"{PROPAGATION}::test_the_bias_falls_with_beta_over_three_decades",
    ),
    Mutation(
        "swap the free and the nudged state",
        "learning/contrastive.py",
        "substrate.contrast(plus, minus, x, nudge_plus, nudge_minus)",
        "substrate.contrast(minus, plus, x, nudge_minus, nudge_plus)",
        f"{PROPAGATION}::test_the_bias_falls_with_beta_over_three_decades",
    ),
    Mutation(
        "divide the centred contrast by beta",
        "learning/contrastive.py",
        'gap = 2 * rule.beta if rule.variant == "centered" else rule.beta',
        "gap = rule.beta",
        f"{PROPAGATION}::test_the_bias_falls_with_beta_over_three_decades",
    ),
    Mutation(
        "start the nudged phase elsewhere than at the free state",
        "substrates/solvers/batching.py",
        "return (jax.tree.map(choose, found.state, state), about, jnp.zeros_like(free)), found",
        "return (state, about, jnp.zeros_like(free)), found",
        f"{PROPAGATION}::test_nudged_phases_start_from_the_free_state",
    ),
    Mutation(
        "give the nudged phases another key",
        "substrates/solvers/batching.py",
        "substrate.relax(x, n, s, key=k), in_axes=axes)(xs, nudge, state, keys)",
        "substrate.relax(x, n, s, key=jax.random.fold_in(k, n.beta > 0)), in_axes=axes)(xs, nudge, state, keys)",
        f"{PROPAGATION}::test_the_key_reaches_every_phase_of_an_example_alike",
    ),
    Mutation(
        "judge only the free phase",
        "learning/rule.py",
        "return sum(jnp.sum(~e.usable) for e in self.equilibria)",
        "return sum(jnp.sum(~e.usable) for e in self.equilibria[:1])",
        f"{PROPAGATION}::test_a_lenient_rule_counts_what_did_not_converge",
    ),
    Mutation(
        "forget the batch mean of the contrast",
        "substrates/substrate.py",
        "return jnp.mean(jax.vmap(eqx.combine(parameters, rest).energy)(states, xs))",
        "return jnp.sum(jax.vmap(eqx.combine(parameters, rest).energy)(states, xs))",
        f"{PROPAGATION}::test_the_bias_falls_with_beta_over_three_decades",
    ),
    Mutation(
        "one Gauss point instead of two",
        "substrates/substrate.py",
        "2: (-0.5 / 3**0.5, 0.5 / 3**0.5)",
        "2: (0.0,)",
        f"{PROPAGATION}::test_each_variant_is_the_gradient_of_its_surrogate",
    ),
    Mutation(
        "stop on the size of the state instead of the force",
        "substrates/solvers/solver.py",
        "finite, Status.where(residual <= limit, Status.converged, Status.out_of_steps), Status.not_finite",
        "finite, Status.where(max_norm(state) <= limit, Status.converged, Status.out_of_steps), Status.not_finite",
        f"{SOLVER}::test_minima_agree_with_scipy",
    ),
    Mutation(
        "forget the walls",
        "substrates/solvers/solver.py",
        "return clipped_by_bounds(state, force, stiffness, lower, upper)[0]",
        "return force",
        f"{SOLVER}::test_minima_agree_with_scipy",
    ),
    Mutation(
        "train constants",
        "substrates/parameters.py",
        'if field.metadata.get("fixed", False):',
        "if False:",
        f"{CONTRACT}::test_positions_in_two_dimensions",
    ),
    Mutation(
        "push instead of pull",
        "substrates/nudge.py",
        "return -_times(self.beta, self._slope(about))",
        "return _times(self.beta, self._slope(about))",
        "tests/substrates/test_nudge.py::test_the_pull_is_minus_the_slope_of_its_energy",
    ),
    Mutation(
        "bend the tangent",
        "substrates/nudge.py",
        "value += jnp.sum(self._slope(about) * (output - about))",
        "value += jnp.sum(self._slope(output) * (output - about))",
        "tests/substrates/test_nudge.py::test_a_tangent_touches_the_cost_at_the_free_output_and_is_straight",
    ),
    Mutation(
        "descend without a polish",
        "substrates/solvers/newton.py",
        "state=select(stepped, moved, select(falling, fallen, select(back, start, state))),",
        "state=select(falling, fallen, select(back, start, state)),",
        f"{SOLVER}::test_minima_agree_with_scipy",
    ),
    Mutation(
        "call everything converged",
        "substrates/solvers/solver.py",
        "Status.where(residual <= limit, Status.converged, Status.out_of_steps)",
        "Status.where(residual <= jnp.inf, Status.converged, Status.out_of_steps)",
        f"{SOLVER}::test_too_few_steps_are_admitted",
    ),
    Mutation(
        "pin to minus the target",
        "substrates/solvers/generic.py",
        "output - pin.target + redundant",
        "output + pin.target + redundant",
        f"{SOLVER}::test_pins_hold_outputs_and_leave_the_rest_free",
    ),
    Mutation(
        "forget the batch mean of the read-out",
        "substrates/readout.py",
        "return -pulls.T @ inner / inner.shape[0]",
        "return -pulls.T @ inner",
        f"{CONTRACT}::test_read_out_weights_learn_from_the_same_contrast",
    ),
    Mutation(
        "forget the half of the squared error",
        "substrates/nudge.py",
        "return 0.5 * jnp.sum((output - target) ** 2)",
        "return jnp.sum((output - target) ** 2)",
        "tests/learning/test_costs.py::test_squared_error_pulls_like_a_spring",
    ),
    Mutation(
        "take the vector field for the gradient",
        "learning/reference.py",
        "answer.transposed(slope) if transpose else answer.solve(slope)",
        "answer.solve(slope)",
        f"{CONTRACT}::test_a_vector_field_without_an_energy",
    ),
    Mutation(
        "count a resistor twice",
        "substrates/classical/resistor/network.py",
        "content = 0.5 * jnp.sum(self.conductance * flow.drops[:edges] ** 2)",
        "content = 0.5 * jnp.sum(self.conductance.at[0].multiply(2) * flow.drops[:edges] ** 2)",
        "tests/substrates/test_circuit.py::test_force_and_measurements_are_gradients_of_the_energy",
    ),
    Mutation(
        "forget the half of the measured power",
        "substrates/classical/resistor/layered.py",
        "self._observables(states, states, xs, 0.5, sources_differ=True)",
        "self._observables(states, states, xs, 1.0, sources_differ=True)",
        "tests/substrates/test_layered.py::test_measurements_are_the_derived_ones",
    ),
    Mutation(
        "a spring that pushes needs half as much",
        "substrates/quantum/oscillator/stability.py",
        "pushed = 2 * jnp.maximum(-springs, 0)",
        "pushed = jnp.maximum(-springs, 0)",
        "tests/substrates/test_plant_steps.py::test_the_nearest_stable_stiffnesses",
    ),
    Mutation(
        "meet common limits as if all stiffnesses yielded alike",
        "substrates/quantum/oscillator/network.py",
        "self._stable((compliance.stiffness, compliance.onsite_stiffness))",
        "self._stable(None)",
        "tests/substrates/test_plant_steps.py::test_parameters_that_yield_unequally_rest_at_their_common_limit",
    ),
    Mutation(
        "hold the parameters at the stronger nudge",
        "learning/agnostic.py",
        "simulation.hold(theta, x, nudge, None, keys)",
        "simulation.hold(theta, x, stronger, None, keys)",
        "tests/substrates/test_plant_steps.py::test_they_are_those_of_the_verbs",
    ),
    Mutation(
        "keep the step that went wrong",
        "learning/agnostic.py",
        "kept = make(lasting)[-1]",
        "kept = make(made)[-1]",
        "tests/substrates/test_plant_steps.py::test_a_step_that_does_not_come_to_rest_is_taken_back",
    ),
    Mutation(
        "forget physical limits where nothing is checked",
        "substrates/solvers/joint.py",
        "            return physical(goal)",
        "            return goal",
        "tests/substrates/test_plant.py::test_every_parameter_balances_its_knob_or_stands_at_its_limit",
    ),
    Mutation(
        "knobs that hold nothing",
        "substrates/solvers/joint.py",
        "lambda e, t, f: t + e * f, parameters, force",
        "lambda e, t, f: t - e * f, parameters, force",
        "tests/substrates/test_plant.py::test_holding_sets_the_knobs_of_the_formula_and_moves_nothing",
    ),
    Mutation(
        "an absolute residual",
        "substrates/substrate.py",
        "self.meeting(state, x, nudge))",
        "jax.tree.map(jnp.ones_like, self.meeting(state, x, nudge)))",
        f"{UNITS}::test_a_weak_part_that_is_off_has_a_large_residual",
    ),
    Mutation(
        "the largest force anywhere in place of those that meet",
        "substrates/solvers/solver.py",
        "meeting = jnp.maximum(scale, size)",
        "meeting = jnp.maximum(jnp.max(scale), size)",
        f"{UNITS}::test_a_weak_part_that_is_off_has_a_large_residual",
    ),
    Mutation(
        "a step that rounding hides",
        "substrates/solvers/certificate.py",
        "imprecise = ~jnp.all(error <= state_tolerance(d.dtype) * size)",
        "imprecise = jnp.any(jnp.isnan(error))",
        f"{UNITS}::test_a_group_that_is_held_weakly_is_right_or_said_to_be_undecided",
    ),
    Mutation(
        "stay at the saddle",
        "substrates/solvers/newton.py",
        "(~settled | stiffness.unstable)",
        "~settled",
        f"{UNITS}::test_a_saddle_is_left",
    ),
    Mutation(
        "a mesh that forgets ground",
        "substrates/classical/resistor/star_mesh.py",
        "            grounded + share * to_ground,",
        "            grounded,",
        f"{UNITS}::test_stars_become_meshes_without_rounding_to_speak_of",
    ),
    Mutation(
        "a warm circuit that does not look",
        "substrates/classical/resistor/newton.py",
        "(view.left <= limit) & (ending.still | (not certain))",
        "view.left <= limit",
        f"{UNITS}::test_conductances_in_series_divide_the_voltage",
    ),
    Mutation(
        "diodes that do not feel how a nudge holds their ends",
        "substrates/classical/resistor/network.py",
        "else self.conductance_scale() + held",
        "else self.conductance_scale() + 0 * held",
        f"{UNITS}::test_a_diode_between_outputs_that_a_strong_nudge_parts_has_no_drop",
    ),
    Mutation(
        "layers that arrive when they stop",
        "substrates/classical/resistor/layer_descent.py",
        "return worst <= state_tolerance(dtype) * size",
        "return worst < jnp.inf",
        f"{UNITS}::test_layers_that_drift_are_not_said_to_have_arrived",
    ),
    Mutation(
        "spins: an absolute rounding where energies are compared",
        "substrates/classical/ising/spins.py",
        "return change, 16 * float(jnp.finfo(change.dtype).eps) * size",
        "return change, jnp.where(size > 0, 1e-6, 0.0).astype(size.dtype)",
        "tests/substrates/test_ising_scales.py::test_a_weakly_held_pair_turns_over_as_a_whole",
    ),
    Mutation(
        "spins: the strongest spin's rounding for all",
        "substrates/classical/ising/sweeps.py",
        "gain < -rounding * with_leading_axes(meeting, gain.ndim)",
        "gain < -rounding * jnp.max(meeting)",
        "tests/substrates/test_ising_scales.py::test_spins_that_strong_couplings_do_not_decide_end_right_by_their_own",
    ),
    Mutation(
        "spins: a residual in units of energy",
        "substrates/classical/ising/spins.py",
        "released = left_over(jax.tree.map(lambda gain: jnp.minimum(gain, 0), gains), meeting)",
        "released = -jnp.min(ravel_pytree(gains)[0], initial=0.0)",
        "tests/substrates/test_ising_scales.py::test_a_spin_against_its_own_weak_field_is_no_equilibrium",
    ),
    Mutation(
        "oscillators: the strongest phase's scale for all",
        "substrates/classical/oscillator/coupled_phases.py",
        "return self.settling(total)",
        "return self.settling(jnp.full_like(total, jnp.max(total)))",
        "tests/substrates/test_oscillator_scales.py::test_a_weak_part_is_judged_by_its_own_torques",
    ),
    Mutation(
        "oscillators: no look at how weakly phases are held",
        "substrates/classical/oscillator/newton.py",
        "doubtful = holding_time(net, start, held) * limit > state_tolerance(flat.dtype)",
        "doubtful = jnp.asarray(False)",
        "tests/substrates/test_oscillator_scales.py::test_weakly_held_lattices_too_large_to_decompose",
    ),
    Mutation(
        "oscillators: forget what turns freely",
        "substrates/classical/oscillator/network.py",
        "return taken((roots == np.arange(self.n, dtype=np.int32)) & ~held, roles.free)",
        "return taken((roots == np.arange(self.n, dtype=np.int32)) & ~held, roles.free) & False",
        "tests/substrates/test_oscillator_scales.py::test_parts_that_nothing_holds_are_said_to_turn_freely",
    ),
    Mutation(
        "judge springs by newtons",
        "substrates/classical/elastic/balance.py",
        "residual=left_over(force, meeting)",
        "residual=jnp.max(jnp.abs(force))",
        f"{ELASTIC_UNITS}::test_all_stiffnesses_times_a_number_leave_the_state",
    ),
    Mutation(
        "judge weak springs by the forces of strong ones",
        "substrates/classical/elastic/balance.py",
        "scale = jnp.where(scale > 0, scale, 1.0)",
        "scale = jnp.broadcast_to(jnp.max(scale), scale.shape)",
        f"{ELASTIC_UNITS}::test_a_part_twelve_decades_weaker_settles_beside_a_strong_one",
    ),
    Mutation(
        "believe multigrid that stalled",
        "substrates/classical/resistor/sparse_inverse.py",
        "all(done for _, done in solved)",
        "True",
        f"{MULTIGRID}::test_kirchhoff_holds_at_every_node_over_twelve_decades_of_conductance",
    ),
    Mutation(
        "let nodes float in multigrid",
        "substrates/classical/resistor/sparse_inverse.py",
        "return bool(np.all(conductance > 0)) or not floating_nodes(layout, conductance[: len(layout.edges)])",
        "return True",
        f"{MULTIGRID}::test_resistors_that_are_gone_let_nodes_float_or_do_not",
    ),
    Mutation(
        "forget that conductances have changed",
        "substrates/solvers/kept.py",
        "known_key == key and all(map(np.array_equal, known, numbers))",
        "known_key == key",
        f"{MULTIGRID}::test_a_hierarchy_serves_no_other_conductances",
    ),
    Mutation(
        "leave a multigrid solution unrefined",
        "substrates/classical/resistor/linear_solve.py",
        "solutions = solutions + change",
        "solutions = solutions",
        f"{MULTIGRID}::test_rough_solutions_are_refined_by_the_currents_of_elements",
    ),
    Mutation(
        "forget the nudge in what refines",
        "substrates/classical/resistor/linear_solve.py",
        "carried(rows) + (left.T @ (c @ (right @ rows[0])))[None]",
        "carried(rows)",
        f"{MULTIGRID}::test_nudged_and_pinned_circuits_settle_where_factors_put_them",
    ),
    Mutation(
        "call a direction of negative curvature solved",
        "substrates/solvers/multigrid.py",
        "if not (curvature > 0 and product > 0):\n                return found, False",
        "if not (curvature > 0 and product > 0):\n                return found, True",
        f"{MULTIGRID}::test_hopeless_matrices_are_given_up",
    ),
    Mutation(
        "turn rigid networks the wrong way",
        "substrates/classical/elastic/grid.py",
        "motions[:, v, dim + number] = -apart[:, v], apart[:, u]",
        "motions[:, v, dim + number] = apart[:, v], apart[:, u]",
        f"{GRID}::test_rigid_motions_stretch_nothing",
    ),
    Mutation(
        "prove stability without the nudge",
        "substrates/classical/elastic/grid.py",
        "felt[read] += extra[1] @ moved[read]",
        "pass",
        f"{GRID}::test_the_curvature_of_a_nudge_counts",
    ),
    Mutation(
        "take a search that met negative curvature for a proof",
        "substrates/classical/elastic/grid.py",
        "if all(done for _, done in solved):",
        "if True:",
        f"{GRID}::test_stability_and_the_softest_mode_are_those_of_all_eigenvalues",
    ),
    Mutation(
        "forget the unit of a sparse factor",
        "substrates/classical/elastic/sparse_factor.py",
        "np.asarray(springs[0], float)[:, None, None] / unit * (outer",
        "np.asarray(springs[0], float)[:, None, None] * (outer",
        f"{ELASTIC_UNITS}::test_and_what_a_factor_tells_of_a_state",
    ),
    Mutation(
        "trust every frequency",
        "substrates/quantum/oscillator/closed_form.py",
        "blurred = blurred if substrate.single.sharp else blurred | modes.blurred",
        "pass",
        f"{OSCILLATOR_UNITS}::test_soft_oscillators_beside_stiff_ones_keep_their_means_and_admit_their_spreads",
    ),
    Mutation(
        "an absolute size of pulls",
        "substrates/quantum/oscillator/closed_form.py",
        "units = jnp.where(sizes > 0, sizes, 1.0)",
        "units = jnp.maximum(sizes, 1.0)",
        f"{OSCILLATOR_UNITS}::test_stiffnesses_times_a_number_leave_means_and_shrink_spreads_by_its_root",
    ),
    Mutation(
        "spins: the first replica in place of the lowest",
        "substrates/classical/ising/annealing.py",
        "return at(jnp.argmin(jnp.where(change < -rounding, change, 0))), steps",
        "return at(0), steps",
        "tests/substrates/test_ising.py::test_every_solver_finds_the_ground_state_that_brute_force_finds",
    ),
    Mutation(
        "spins: the field of a held spin the wrong way round",
        "substrates/classical/ising/model.py",
        "self.roles.arranged(state, x.astype(state.dtype))",
        "self.roles.arranged(state, -x.astype(state.dtype))",
        "tests/substrates/test_ising.py::test_every_solver_finds_the_ground_state_that_brute_force_finds",
    ),
    Mutation(
        "grids: the neighbour beside on the wrong side",
        "substrates/classical/ising/grid.py",
        "beyond = jnp.where(self._side(half, other.ndim) == 0, beside(last, -1), beside(last, 1))",
        "beyond = jnp.where(self._side(half, other.ndim) == 1, beside(last, -1), beside(last, 1))",
        f"{ISING_GRID}::test_sweeps_over_a_grid_see_the_energies_of_its_spins",
    ),
    Mutation(
        "grids: couplings felt from one side only",
        "substrates/wiring/grids.py",
        "total += along * jnp.roll(whole, -1, axis) + jnp.roll(along * whole, 1, axis)",
        "total += along * jnp.roll(whole, -1, axis)",
        f"{ISING_GRID}::test_a_grid_is_the_lattice_of_its_edges",
    ),
    Mutation(
        "grids: a coupling in the unit of temperature once",
        "substrates/classical/ising/grid.py",
        "self.scale = jnp.sqrt((2 * squares + jnp.sum(field**2)) / self.size)",
        "self.scale = jnp.sqrt((squares + jnp.sum(field**2)) / self.size)",
        f"{ISING_GRID}::test_sweeps_over_a_grid_see_the_energies_of_its_spins",
    ),
    Mutation(
        "grids: couplings to inputs in the unit of temperature",
        "substrates/classical/ising/grid.py",
        "along = [w * free * jnp.roll(free, -1, axis) for",
        "along = [w * free for",
        f"{ISING_GRID}::test_sweeps_over_a_grid_see_the_energies_of_its_spins",
    ),
    Mutation(
        "grids: outputs that feel each other twice",
        "substrates/classical/ising/grid.py",
        "apart = self._at_outputs(felt) - s @ between",
        "apart = self._at_outputs(felt)",
        f"{ISING_GRID}::test_sweeps_over_a_grid_see_the_energies_of_its_spins",
    ),
    Mutation(
        "grids: pinned outputs that move",
        "substrates/classical/ising/grid.py",
        "spins[half] = spins[half].at[at].set(old[at])",
        "spins[half] = spins[half].at[at].set(spins[half][at])",
        f"{ISING_GRID}::test_a_pin_holds_the_outputs_of_a_grid",
    ),
    Mutation(
        "grids: clusters that grow one way",
        "substrates/classical/ising/clusters.py",
        "for bonds, step in ((here, -1), (self._moved(here, 1, axis), 1)):",
        "for bonds, step in ((here, -1),):",
        f"{ISING_GRID}::test_clusters_of_a_grid_are_the_connected_parts_of_its_bonds",
    ),
    Mutation(
        "grids: the same random numbers for both halves",
        "substrates/classical/ising/grid.py",
        "flips = accept(gain, s, half * s.size, self.meeting[half][None])",
        "flips = accept(gain, s, 0, self.meeting[half][None])",
        f"{ISING_GRID}::test_both_halves_of_a_grid_draw_their_own_numbers",
    ),
    Mutation(
        "grids: free nodes counted past inputs one too few",
        "substrates/wiring/roles.py",
        'jnp.searchsorted(before, slot, side="right")',
        'jnp.searchsorted(before, slot, side="left")',
        f"{ISING_GRID}::test_a_grid_is_the_lattice_of_its_edges",
    ),
    Mutation(
        "quantum spins: couplings between the halves the wrong way round",
        "substrates/quantum/basis.py",
        "return (first[:, None] + second[None] - between).ravel()",
        "return (first[:, None] + second[None] + between).ravel()",
        "tests/substrates/test_transverse_ising.py::test_without_transverse_fields_it_is_the_classical_ising_model",
    ),
    Mutation(
        "quantum spins: no gap is too small",
        "substrates/quantum/eigensolvers.py",
        "tied = (status == Status.converged) & (gap <= self.no_gap(start.dtype))",
        "tied = (status == Status.converged) & (gap < 0)",
        "tests/substrates/test_transverse_ising.py::test_a_degenerate_ground_state_is_reported",
    ),
    Mutation(
        "quantum spins: what could hide a level is not looked at",
        "substrates/quantum/eigensolvers.py",
        "return distance, first * found.growth * distance",
        "return distance, 0.1 * distance",
        f"{QUANTUM_UNITS}::test_a_tiny_gap_of_any_operators_is_found",
    ),
    Mutation(
        "quantum spins: a nudge of strength 0 is judged as a nudge",
        "substrates/quantum/eigensolvers.py",
        "jnp.where(is_free(nudge), free, free * pushed)",
        "free * pushed",
        "tests/substrates/test_quantum_graphs.py::test_a_free_phase_is_a_nudge_of_strength_0",
    ),
    Mutation(
        "a homeostat that is content at once",
        "learning/homeostat.py",
        "while not held.settled and held.rounds < self.max_rounds:",
        "while held.rounds < 1:",
        "tests/learning/test_agnostic.py::test_a_circuit_makes_the_step_of_equilibrium_propagation",
    ),
    Mutation(
        "an agnostic rule that nudges twice as far",
        "learning/agnostic.py",
        '"centered": (-beta / 2, beta / 2)}[self.variant]',
        '"centered": (-beta, beta)}[self.variant]',
        "tests/learning/test_agnostic.py::test_a_circuit_makes_the_step_of_equilibrium_propagation",
    ),
    Mutation(
        "minimal residuals with a rotation the wrong way",
        "substrates/solvers/krylov.py",
        "c * alpha - c_before * s * beta",
        "c * alpha + c_before * s * beta",
        f"{KRYLOV}::test_minimal_residuals_solve_indefinite_symmetric_systems",
    ),
    Mutation(
        "a limited solver that ran out of steps",
        "substrates/solvers/solver.py",
        "stopped = (found.status == Status.out_of_steps) & (found.steps >= self.count)",
        "stopped = found.steps < 0",
        f"{KRYLOV}::test_a_limited_solver_stops_where_it_was_told_to",
    ),
    Mutation(
        "take a pin that nothing can hold",
        "substrates/substrate.py",
        "if isinstance(nudge, Pin) and unable:",
        "if isinstance(nudge, Pin) and not unable:",
        f"{WRAPPER}::test_what_a_system_cannot_do_is_refused_by_its_contract",
    ),
    Mutation(
        "nudge the inner system by what was meant for the read-out",
        "substrates/readout.py",
        "return Wrapper.inside(self, replaced(given, Nudge, through))",
        "return Wrapper.inside(self, given)",
        f"{WRAPPER}::test_what_the_contract_gains_wrappers_gain",
    ),
    Mutation(
        "hold outputs and forget the walls",
        "substrates/solvers/generic.py",
        "balance = unbalanced(example, unknowns[:n], balance, wall)",
        "balance = balance + 0 * wall",
        f"{SOLVER}::test_a_pin_is_met_within_bounds",
    ),
    Mutation(
        "hold outputs on the far side of where they are free",
        "learning/coupled.py",
        'pair = {"positive": [output + step, None]',
        'pair = {"positive": [output - step, None]',
        "tests/learning/test_coupled.py::test_outputs_are_held_on_either_side_of_where_they_are_free",
    ),
    Mutation(
        "forget that both sides are held eta away",
        "learning/coupled.py",
        '2 * eta if self.variant == "centered" else eta',
        "eta",
        "tests/learning/test_coupled.py::test_several_outputs_are_weighed_by_the_inverse_of_their_response",
    ),
    Mutation(
        "turn the weights of Cauchy's integral with the nudges",
        "learning/holomorphic.py",
        "jnp.asarray(turns.conj() / count, kind)",
        "jnp.asarray(turns / count, kind)",
        "tests/learning/test_holomorphic.py::test_halving_the_radius_divides_the_error_by_two_to_the_number_of_points",
    ),
    Mutation(
        "count the conjugate half of a circle once",
        "learning/holomorphic.py",
        "1 if 2 * k % rule.points == 0 else 2",
        "1",
        "tests/learning/test_holomorphic.py::test_half_a_circle_stands_for_the_whole",
    ),
    Mutation(
        "turn the knobs of coupled learning uphill",
        "learning/coupled_knobs.py",
        "moved = knobs - float(self.learning_rate)",
        "moved = knobs + float(self.learning_rate)",
        "tests/learning/test_coupled_knobs.py::test_stiff_knobs_take_the_step_of_coupled_learning",
    ),
    Mutation(
        "judge a held output by what it shows alone",
        "substrates/substrate.py",
        "sizes = jnp.maximum(jnp.abs(flat), forces / jnp.where(stiffness > 0, stiffness, jnp.inf))",
        "sizes = jnp.abs(flat)",
        "tests/substrates/test_generic_solver.py::test_pins_hold_outputs_and_leave_the_rest_free",
    ),
    Mutation(
        "balance forces and outputs in their own units",
        "substrates/solvers/generic.py",
        "[balance / stiffness, output - pin.target",
        "[balance, output - pin.target",
        f"{SOLVER}::test_pins_hold_in_any_unit_of_energy",
    ),
    Mutation(
        "take a vector for an energy",
        "substrates/entrance.py",
        "shapes == [()] and alone",
        "alone",
        "tests/test_written_methods.py::test_what_a_method_must_not_return_is_refused_by_its_name",
    ),
    Mutation(
        "take a force of any shape",
        "substrates/entrance.py",
        "fits = structure == jax.tree.structure(state) and shapes == like",
        "fits = structure == jax.tree.structure(state)",
        "tests/test_written_methods.py::test_what_a_method_must_not_return_is_refused_by_its_name",
    ),
    Mutation(
        "let NaN pass where nothing uses it",
        "theory_checks/laws_of_promises.py",
        "int(np.sum(wrong(leaf)))",
        "0 * int(np.sum(wrong(leaf)))",
        "tests/theory_checks/test_faults.py::test_the_law_that_names_a_fault_finds_it_and_says_where_to_look",
    ),
    Mutation(
        "refuse constants at infinity",
        "theory_checks/laws_of_promises.py",
        "(lambda leaf: ~np.isfinite(leaf), np.isnan)",
        "(lambda leaf: ~np.isfinite(leaf),) * 2",
        "tests/theory_checks/test_faults.py::test_a_constant_may_be_infinite_and_a_parameter_may_not",
    ),
    Mutation(
        "see the state where nothing shows it",
        "theory_checks/laws_of_promises.py",
        "np.max(changes), case.epsilon)]",
        "1 + np.max(changes), case.epsilon)]",
        "tests/theory_checks/test_faults.py::test_the_law_that_names_a_fault_finds_it_and_says_where_to_look",
    ),
    Mutation(
        "let the compiler share loops out, so that devices wait",
        "substrates/solvers/sharing.py",
        "    if not devices or count % devices:",
        "    if devices or count % max(devices, 1):",
        f"{DEVICES}::test_gradients_are_summed_at_once_and_no_loop_waits_for_another_device",
    ),
    Mutation(
        "take processes at their word that they do the same",
        "learning/devices.py",
        "            if other is not None:",
        "            if False:",
        f"{DEVICES}::test_processes_that_differ_say_in_what",
    ),
    Mutation(
        "let devices have unequal parts of a batch",
        "learning/devices.py",
        "        if size % self.count:",
        "        if size < self.count:",
        f"{DEVICES}::test_every_device_has_as_many_examples",
    ),
    Mutation(
        "evaluate by batches that devices cannot share",
        "learning/devices.py",
        "up = -(-size // self.count) * self.count",
        "up = size // self.count * self.count",
        f"{DEVICES}::test_every_device_has_as_many_examples",
    ),
    Mutation(
        "let steps have all columns of a matrix",
        "substrates/solvers/sharing.py",
        "    return _constrained(tree, lambda leaf: column_spec(leaf, devices))",
        "    return _constrained(tree, lambda leaf: PartitionSpec())",
        f"{COLUMNS}::test_each_has_its_columns_of_parameters_and_of_what_the_optimiser_keeps",
    ),
    Mutation(
        "let the compiler choose how parameters leave a step",
        "learning/steps.py",
        "    return at, divided(moving)",
        "    return at, moving",
        f"{COLUMNS}::test_networks_whose_columns_are_shared_settle_as_on_one_device[Hopfield]",
    ),
    Mutation(
        "share columns of which devices have unequal parts",
        "substrates/solvers/sharing.py",
        " or leaf.shape[-1] % devices:",
        ":",
        f"{COLUMNS}::test_columns_are_shared_where_a_matrix_is_large_and_all_have_as_many",
    ),
    Mutation(
        "let rules that move parameters share columns",
        "learning/devices.py",
        "        if isinstance(rule, Mover):",
        "        if False:",
        f"{COLUMNS}::test_the_command_refuses_before_it_says_anything",
    ),
    Mutation(
        "give a run's parameters back on the mesh",
        "learning/devices.py",
        "        held = lambda leaf: eqx.is_array(leaf) and isinstance(leaf.sharding, NamedSharding)",
        "        held = lambda leaf: False",
        f"{DEVICES}::test_what_a_run_returns_is_of_one_device_and_resumes_without_a_mesh",
    ),
    Mutation(
        "nudge all examples of a device like those of the first",
        "substrates/solvers/batching.py",
        "beta=1 if nudges.beta.ndim == 2 else None)",
        "beta=None)",
        f"{DEVICES}::test_two_processes_give_the_numbers_of_one_device",
    ),
    Mutation(
        "step into an infinite energy where the forces work",
        "substrates/solvers/newton.py",
        "& ~stiffness.unstable & (energy < jnp.inf)",
        "& ~stiffness.unstable",
        f"{SOLVER}::test_no_step_leads_to_an_infinite_energy[dense]",
    ),
    Mutation(
        "polish into an infinite energy without a matrix",
        "substrates/solvers/generic.py",
        "nearer &= example.energy(new) < jnp.inf",
        "nearer &= jnp.isfinite(after)",
        f"{SOLVER}::test_no_step_leads_to_an_infinite_energy[Krylov]",
    ),
    Mutation(
        "take the lack of forces at an infinite energy for a zero mode",
        "substrates/solvers/solver.py",
        "ended |= (found.status == Status.zero_mode) | (found.status == Status.ill_conditioned)",
        "ended |= found.status == Status.ill_conditioned",
        f"{SOLVER}::test_no_step_leads_to_an_infinite_energy[dense]",
    ),
    Mutation(
        "judge the motions about a fixed point at a state off by its residual",
        "substrates/solvers/generic.py",
        "_staying(example, found.ahead, settled)",
        "_staying(example, found.state, settled)",
        f"{SOLVER}::test_a_state_off_by_its_residual_is_judged_as_the_fixed_point",
    ),
    Mutation(
        "let bounds in a corner take up forces that pull away from them",
        "substrates/substrate.py",
        "((place <= lower) & (found <= 0))",
        "(place <= lower)",
        f"{SOLVER}::test_what_pins_and_bounds_can_share_leaves_no_force",
    ),
    Mutation(
        "share the forces of pins and bounds by full steps alone",
        "substrates/substrate.py",
        "best = jnp.argmin(jax.vmap(lambda holding: far(push - along.T @ holding))(tried))",
        "best = jnp.argmin(jax.vmap(lambda holding: far(0 * along.T @ holding))(tried))",
        f"{SOLVER}::test_what_pins_and_bounds_can_share_leaves_no_force",
    ),
    Mutation(
        "take a force at an output that nothing decides for a motion that it shows",
        "substrates/solvers/certificate.py",
        "seen &= jnp.any(turned > rounded[:, None], axis=0)",
        "seen &= jnp.any(turned >= 0 * rounded[:, None], axis=0)",
        f"{SOLVER}::test_a_pin_is_met_in_a_corner_of_the_bounds",
    ),
    Mutation(
        "tell nothing of a Hopfield network that was not swept",
        "substrates/classical/hopfield/block_descent.py",
        "first = carry, jnp.full_like(limit, -1), ",
        "first = carry, endless, ",
        f"{LIMITED}::test_no_step_at_all_tells_how_far_the_start_is[continuous Hopfield]",
    ),
    Mutation(
        "tell nothing of a recurrent network that was not moved",
        "substrates/solvers/anderson.py",
        "return going | (round_ == 0)",
        "return going",
        f"{LIMITED}::test_no_step_at_all_tells_how_far_the_start_is[recurrent]",
    ),
    Mutation(
        "step on after the last look at activators and inhibitors",
        "substrates/skew_gradient.py",
        "ahead = jnp.where(more, now.state + moved, now.state)",
        "ahead = jnp.where(going, now.state + moved, now.state)",
        f"{LIMITED}::test_no_step_at_all_tells_how_far_the_start_is[activators and inhibitors]",
    ),
    Mutation(
        "count steps that are no whole number",
        "substrates/arguments.py",
        "not isinstance(value, int | np.integer) or value < least",
        "value < least",
        f"{LIMITED}::test_steps_that_cannot_be_counted_are_refused",
    ),
)


def apply(mutation: Mutation, root: Path) -> bool:
    """Writes the mutation into a copy; whether its line was there, once."""
    path = root / mutation.path
    text = path.read_text()
    if text.count(mutation.before) != 1:
        return False
    path.write_text(text.replace(mutation.before, mutation.after))
    return True


def outcome(mutation: Mutation, root: Path) -> str:
    """ "caught" if the named test fails on its assertions, else what went wrong."""
    original = (root / mutation.path).read_text()
    if not apply(mutation, root):
        return "LINE NOT FOUND"
    try:
        # in one process, which alone tells a failed test from a broken run, and slow tests too
        options = ["-x", "-q", "--no-header", "-n", "0", "-m", "", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", *options, mutation.test]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment = {**inherited, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    finally:
        (root / mutation.path).write_text(original)
    return {0: "SURVIVED", 1: "caught"}.get(done.returncode, f"THE TEST DID NOT RUN: {done.stdout[-300:]}")


def copied(root: Path) -> Path:
    """A folder with a copy of the packages, which is what gets imported there."""
    root.mkdir()
    for name in COPIED:
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, root / name, ignore=ignore) if source.is_dir() else shutil.copy(source, root / name)
    shown = subprocess.run(
        [sys.executable, "-c", "import substrates; print(substrates.__file__)"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    if not Path(shown.stdout.strip()).is_relative_to(root):
        raise RuntimeError(f"the copy is not what gets imported: {shown.stdout.strip()}")
    return root


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only mutations whose names hold one of them")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time (default: 1)")
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if not options.words or any(word in m.name for word in options.words)]
    failures = 0
    print(f"{'mutation':58}  {'outcome':16}  {'seconds':>7}  test")
    with tempfile.TemporaryDirectory() as folder, ThreadPool(options.jobs) as pool:
        roots: Queue[Path] = Queue()
        for job in range(options.jobs):
            roots.put(copied(Path(folder) / str(job)))

        def tried(mutation: Mutation) -> tuple[str, float]:
            root, begun = roots.get(), time.perf_counter()
            try:
                return outcome(mutation, root), time.perf_counter() - begun
            finally:
                roots.put(root)

        for mutation, (found, seconds) in zip(chosen, pool.imap(tried, chosen), strict=True):
            failures += found != "caught"
            print(f"{mutation.name:58}  {found:16}  {seconds:7.1f}  {mutation.test}", flush=True)
    print(f"{len(chosen) - failures} of {len(chosen)} mutations are caught.")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
