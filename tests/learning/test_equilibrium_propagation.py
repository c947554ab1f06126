"""Equilibrium propagation: signs, bias, bounds, strictness and stability in float32."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning import CrossEntropy, EquilibriumPropagation, SquaredError
from learning.contrastive import estimate_by_contrast
from learning.reference import ImplicitGradient
from learning.rule import ConvergenceError
from substrates import Nudge, Status, Substrate
from substrates.solvers import batching
from substrates.solvers.solver import Solver, judge, tolerance
from substrates.substrate import relax_batch


class Steps(Solver):
    """A given number of Newton steps on the force."""

    count: int = 25

    def __call__(self, substrate, x, nudge, start, key):
        balance = lambda state: substrate.total_force(state, x, nudge)
        step = lambda _, state: state - jnp.linalg.solve(jax.jacfwd(balance)(state), balance(state))
        state = jax.lax.fori_loop(0, self.count, step, start)
        return judge(substrate, state, x, nudge, self.count, tolerance(substrate, start, x, nudge))


class Springs(Substrate):
    """A convex chain of hardening springs."""

    stiffness: jax.Array
    hardness: jax.Array
    solver = Steps()

    def energy(self, state, x):
        stretch = jnp.diff(jnp.concatenate([x, state]))
        return 0.5 * jnp.sum(self.stiffness * stretch**2) + 0.25 * jnp.sum(self.hardness * state**4)

    def initial_state(self, x):
        return jnp.full(3, 0.1, x.dtype)

    def read(self, state, x):
        return state[1:]


class HastySprings(Springs):
    """The same chain, given one step to settle."""

    solver = Steps(1)


SYSTEM = Springs(jnp.array([1.0, 2.0, 1.5]), jnp.array([1.0, 0.5, 0.8]))
X, Y = jnp.array([[0.6], [-0.8], [0.3]]), jnp.array([[0.5, 0.7], [-0.3, -0.5], [0.9, -0.2]])
VARIANTS = ("positive", "negative", "centered")
exact = eqx.filter_jit(ImplicitGradient())
estimate = eqx.filter_jit(lambda rule, system, x, y: rule(system, x, y))
signed = eqx.filter_jit(lambda rule, system, x, y, key: rule(system, x, y, key=key))


def propagate(variant, beta, cost=None, system=SYSTEM):
    rule = EquilibriumPropagation(jnp.asarray(beta), variant, SquaredError() if cost is None else cost)
    return estimate(rule, system, X, Y)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def error(variant, beta, wanted):
    return np.linalg.norm(flat(propagate(variant, beta).gradient) - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize(("variant", "order"), [("positive", 1), ("negative", 1), ("centered", 2)])
def test_the_bias_falls_with_beta_over_three_decades(variant, order):
    wanted = flat(exact(SYSTEM, X, Y).gradient)
    betas = 1e-1 / 2.0 ** np.arange(10) if order == 2 else 1e-1 / 2.0 ** np.arange(11)
    errors = np.array([error(variant, beta, wanted) for beta in betas])
    ratios = errors[:-1] / errors[1:]
    np.testing.assert_allclose(ratios[2:], 2.0**order, rtol=0.03)
    np.testing.assert_allclose(ratios[:2], 2.0**order, rtol=0.15)


def test_at_its_best_beta_the_estimate_is_exact_to_eight_digits():
    wanted = flat(exact(SYSTEM, X, Y).gradient)
    assert min(error("centered", beta, wanted) for beta in (1e-3, 3e-4, 1e-4, 3e-5, 1e-5)) < 1e-8


@pytest.mark.parametrize(("variant", "plus", "minus"), [("positive", 1, 0), ("negative", 0, -1), ("centered", 1, -1)])
def test_each_variant_is_the_gradient_of_its_surrogate(variant, plus, minus):
    beta, step = 0.2, 1e-5

    def surrogate(system):
        free = relax_batch(system, X)
        least = lambda b: jnp.mean(relax_batch(system, X, Nudge(SquaredError(), Y, b), free.state).energy)
        return float((least(plus * beta) - least(minus * beta)) / ((plus - minus) * beta))

    found = propagate(variant, beta).gradient
    for which in (lambda s: s.stiffness, lambda s: s.hardness):
        move = lambda k, h, w=which: eqx.tree_at(w, SYSTEM, w(SYSTEM).at[k].add(h))
        wanted = [(surrogate(move(k, step)) - surrogate(move(k, -step))) / (2 * step) for k in range(3)]
        np.testing.assert_allclose(which(found), wanted, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_equilibria_are_those_of_the_table(variant):
    found = propagate(variant, 0.3)
    strengths = {"positive": [0.0, 0.3], "negative": [0.0, -0.3], "centered": [0.0, 0.3, -0.3]}[variant]
    assert found.relaxations == len(found.equilibria) == len(strengths)
    for equilibria, beta in zip(found.equilibria, strengths, strict=True):
        residual = jax.vmap(lambda s, x, y, b=beta: SYSTEM.residual(s, x, Nudge(SquaredError(), y, b)))
        assert float(jnp.max(residual(equilibria.state, X, Y))) < 1e-12
    np.testing.assert_allclose(found.cost, np.mean(0.5 * np.sum((found.output - Y) ** 2, axis=1)), rtol=1e-14)


@given(seed=st.integers(0, 10_000), beta=st.floats(0.01, 0.6))
def test_the_surrogates_enclose_the_cost_and_the_cost_falls_with_beta(seed, beta):
    keys = jax.random.split(jax.random.key(seed), 4)
    system = Springs(jax.random.uniform(keys[0], (3,), minval=0.7), jax.random.uniform(keys[1], (3,)))
    x, y = jax.random.normal(keys[2], (3, 1)), jax.random.normal(keys[3], (3, 2))
    free = relax_batch(system, x)
    nudged = {b: relax_batch(system, x, Nudge(SquaredError(), y, jnp.asarray(b)), free.state) for b in (-beta, beta)}
    if not all(bool(jnp.all(e.converged)) for e in nudged.values()):
        return  # a negative nudge may exceed what holds the outputs
    costs = [jax.vmap(SquaredError())(e.state[:, 1:], y) for e in (nudged[-beta], free, nudged[beta])]
    below, above = (nudged[beta].energy - free.energy) / beta, (free.energy - nudged[-beta].energy) / beta
    scale = 1e-10 * (1 + jnp.max(jnp.abs(free.energy)) / beta)
    assert bool(jnp.all(below <= costs[1] + scale))
    assert bool(jnp.all(costs[1] <= above + scale))
    assert bool(jnp.all(jnp.diff(jnp.stack(costs), axis=0) <= scale))


def test_a_strict_rule_raises_in_eager_and_in_compiled_code():
    hasty = HastySprings(SYSTEM.stiffness, SYSTEM.hardness)
    rule = EquilibriumPropagation(0.1)
    with pytest.raises(ConvergenceError, match=r"3 of 3 free equilibria: The residual was still above.*strict=False"):
        rule(hasty, X, Y)
    with pytest.raises(RuntimeError, match="an equilibrium did not converge"):
        jax.block_until_ready(eqx.filter_jit(rule)(hasty, X, Y).cost)


def test_a_lenient_rule_counts_what_did_not_converge():
    hasty = HastySprings(SYSTEM.stiffness, SYSTEM.hardness)
    found = eqx.filter_jit(EquilibriumPropagation(0.1, strict=False))(hasty, X, Y)
    assert int(found.unusable) == int(found.unconverged) == sum(int(jnp.sum(~e.converged)) for e in found.equilibria)
    assert int(found.unusable) >= 3
    assert float(found.residual) == max(float(jnp.max(e.residual)) for e in found.equilibria)


def test_equilibria_truncated_on_request_are_used_and_counted():
    class Truncating(Steps):
        def __call__(self, substrate, x, nudge, start, key):
            found = Steps.__call__(self, substrate, x, nudge, start, key)
            return eqx.tree_at(lambda e: e.status, found, Status.truncated)

    class TruncatedSprings(Springs):
        solver = Truncating(2)

    found = EquilibriumPropagation(0.1)(TruncatedSprings(SYSTEM.stiffness, SYSTEM.hardness), X, Y)
    assert int(found.unusable) == 0
    assert int(found.unconverged) == 9


@pytest.mark.parametrize("beta", [0.0, -0.1, float("nan"), float("inf")])
def test_a_beta_that_makes_no_sense_is_refused(beta):
    with pytest.raises(ValueError, match=r"beta: wanted a positive number"):
        EquilibriumPropagation(beta)


def test_random_signs_nudge_each_example_one_way_and_average_to_the_centred_estimate():
    rule = EquilibriumPropagation(jnp.asarray(0.3), "random")
    found = {}
    for seed in range(40):
        drawn = signed(rule, SYSTEM, X, Y, jax.random.key(seed))
        up = drawn.equilibria[1].energy > drawn.equilibria[0].energy
        found[tuple(up.tolist())] = flat(drawn.gradient)
        assert drawn.relaxations == 2
    assert len(found) == 8, "every combination of the signs of three examples"
    np.testing.assert_allclose(np.mean(list(found.values()), axis=0), flat(propagate("centered", 0.3).gradient))
    for signs, variant in (((True,) * 3, "positive"), ((False,) * 3, "negative")):
        np.testing.assert_allclose(found[signs], flat(propagate(variant, 0.3).gradient), rtol=1e-12)


def test_random_signs_need_a_key():
    with pytest.raises(ValueError, match="key: wanted a key"):
        EquilibriumPropagation(0.1, "random")(SYSTEM, X, Y)


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match=r"variant: wanted one of .*'centered'.*got 'both'"):
        EquilibriumPropagation(0.1, "both")


def test_a_plain_function_is_a_cost():
    cost = lambda output, target: 0.5 * jnp.sum((output - target) ** 2)
    found, wanted = propagate("centered", 0.1, cost), propagate("centered", 0.1)
    np.testing.assert_allclose(flat(found.gradient), flat(wanted.gradient), rtol=1e-12)


def test_linearised_nudges_are_tangents_and_have_the_same_limit():
    wanted = exact(SYSTEM, X, Y).gradient
    sharp = lambda output, target: jnp.sum(jnp.cosh(3 * (output - target)))
    rule = EquilibriumPropagation(0.01, cost=sharp, linearised=True)
    found = estimate(rule, SYSTEM, X, Y)
    about = found.output
    tangents = [
        relax_batch(SYSTEM, X, Nudge(sharp, Y, beta, about), found.equilibria[0].state) for beta in (0.01, -0.01)
    ]
    for equilibrium, tangent in zip(found.equilibria[1:], tangents, strict=True):
        np.testing.assert_allclose(equilibrium.state, tangent.state, atol=1e-14)
    bent = estimate(EquilibriumPropagation(0.01, cost=sharp), SYSTEM, X, Y)
    assert float(jnp.max(jnp.abs(bent.gradient.stiffness - found.gradient.stiffness))) > 1e-3
    errors = []
    for beta in (0.02, 0.01):
        near = estimate(EquilibriumPropagation(beta, linearised=True), SYSTEM, X, Y).gradient
        errors.append(float(jnp.linalg.norm(near.stiffness - wanted.stiffness)))
    assert 3.8 < errors[0] / errors[1] < 4.2


def test_cross_entropy_gives_its_own_gradient():
    found = propagate("centered", 1e-3, CrossEntropy())
    wanted = ImplicitGradient(CrossEntropy())(SYSTEM, X, Y).gradient
    np.testing.assert_allclose(flat(found.gradient), flat(wanted), rtol=1e-5)


class Divider(Substrate):
    """Conductances from inputs of thousands of volts to grounded outputs."""

    conductance: jax.Array

    def energy(self, state, x):
        return 0.5 * jnp.sum(self.conductance * (x[:, None] - state[None]) ** 2) + 0.5 * jnp.sum(state**2)

    def initial_state(self, x):
        return jnp.zeros(3, x.dtype)

    def read(self, state, x):
        return state


class QuadraticDivider(Divider):
    """The same, whose energy is declared to be at most quadratic in the state."""

    contrast_points = 1


@pytest.mark.parametrize("kind", [Divider, QuadraticDivider])
def test_float32_keeps_the_direction_that_a_plain_difference_loses(kind):
    keys = jax.random.split(jax.random.key(2), 3)
    x = 4000 * jax.random.normal(keys[1], (4, 8))
    system = kind(jax.random.uniform(keys[0], (8, 3)) / 4)
    total = jnp.sum(system.conductance, axis=0)[None]
    settle = lambda beta, y: (x @ system.conductance + beta * y) / (1 + total + beta)
    y = settle(0.0, 0.0) + jax.random.normal(keys[2], (4, 3))
    plus, minus = (settle(beta, y).astype(jnp.float32) for beta in (1e-3, -1e-3))
    small = kind(system.conductance.astype(jnp.float32))
    wide = lambda a: np.asarray(a, np.float64)
    x32 = x.astype(jnp.float32)
    drops = lambda state: 0.5 * (wide(x32)[:, :, None] - wide(state)[:, None]) ** 2
    wanted = np.mean(drops(plus) - drops(minus), axis=0)
    cosine = lambda found: np.sum(wide(found) * wanted) / np.linalg.norm(wide(found)) / np.linalg.norm(wanted)
    plain = small.measure(plus, x32).conductance - small.measure(minus, x32).conductance
    assert cosine(plain) < 0.99
    assert cosine(small.contrast(plus, minus, x32).conductance) > 1 - 1e-9


def test_the_key_reaches_every_phase_of_an_example_alike():
    class Shaken(Springs):
        def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
            found = Springs.relax(self, x, nudge, start, key=key)
            return eqx.tree_at(lambda e: e.state, found, found.state + jax.random.normal(key, (3,)))

    found = EquilibriumPropagation(1e-3, strict=False)(
        Shaken(SYSTEM.stiffness, SYSTEM.hardness), X, Y, key=jax.random.key(1)
    )
    still = EquilibriumPropagation(1e-3)(SYSTEM, X, Y)
    shakes = [found.equilibria[k].state - still.equilibria[k].state for k in range(3)]
    np.testing.assert_allclose(shakes[0], shakes[1], atol=1e-2)
    np.testing.assert_allclose(shakes[0], shakes[2], atol=1e-2)
    assert np.max(np.abs(shakes[0][0] - shakes[0][1])) > 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_nudged_phases_start_from_the_free_state(variant):
    class Watched(Springs):
        def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
            found = Springs.relax(self, x, nudge, start, key=key)
            gap = jnp.where(nudge.beta == 0, 0.0, jnp.max(jnp.abs(self.total_force(start, x))))
            return eqx.tree_at(lambda e: e.residual, found, jnp.maximum(found.residual, gap))

    found = EquilibriumPropagation(0.1, variant)(Watched(SYSTEM.stiffness, SYSTEM.hardness), X, Y)
    assert float(found.residual) < 1e-12


@pytest.mark.parametrize("linearised", [False, True])
@pytest.mark.parametrize("variant", [*VARIANTS, "random"])
def test_a_copy_of_the_program_for_each_phase_gives_the_same(variant, linearised, monkeypatch):
    rule = EquilibriumPropagation(0.1, variant, linearised=linearised)
    phases = lambda: eqx.filter_jit(lambda: estimate_by_contrast(rule, SYSTEM, X, Y, jax.random.key(0)))()
    rolled = phases()
    monkeypatch.setattr(batching, "WORTH_A_COPY", 0)
    jax.clear_caches()
    for found, wanted in zip(jax.tree.leaves(phases()), jax.tree.leaves(rolled), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)
