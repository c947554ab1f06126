"""The generic solver: minima against SciPy, bounds, flows, saddles, precision, size and honesty."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hurried import as_users_compile
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from learning import SquaredError
from learning.costs import NegativeLogLikelihood
from substrates import Nudge, Pin, Status, Substrate
from substrates.solvers.generic import DescendThenPolish, Newton
from substrates.solvers.solver import tolerance
from substrates.substrate import relax_batch

judged = eqx.filter_jit(lambda system, state, x, nudge=None: tolerance(system, state, x, nudge))
settle = eqx.filter_jit(lambda system, x, nudge=None, start=None: system.relax(x, nudge, start))
settle_alike = eqx.filter_jit(
    lambda system, x, nudge, start: system.relax(x, nudge, start), compiler_options=as_users_compile()
)


class Quartic(Substrate):
    """Coupled wells: E = 1/2 s'Ks + 1/4 sum s^4 - x's."""

    stiffness: jax.Array

    def energy(self, state, x):
        return 0.5 * state @ self.stiffness @ state + 0.25 * jnp.sum(state**4) - x @ state

    def initial_state(self, x):
        return jnp.zeros(self.stiffness.shape[0])

    def read(self, state, x):
        return state[:2]


class Boxed(Quartic):
    """The same between walls."""

    def bounds(self, x):
        return jnp.full(6, -0.2), jnp.full(6, 0.3)


class OneSided(Quartic):
    """The same above a floor."""

    def bounds(self, x):
        return jnp.zeros(6), jnp.full(6, jnp.inf)


class TwoWells(Substrate):
    """A saddle at the origin between two minima at (+-1, 0)."""

    depth: jax.Array

    def energy(self, state, x):
        return self.depth * (0.25 * (state[0] ** 2 - 1) ** 2 + 0.5 * state[1] ** 2)

    def initial_state(self, x):
        return jnp.zeros(2)

    def read(self, state, x):
        return state


class Flow(Substrate):
    """A vector field with a stable and an unstable fixed point, and a rotation that no energy has."""

    rate: jax.Array

    def force(self, state, x, nudge=None):
        turn = 1.5 * jnp.stack([-state[1], state[0]])
        return -self.rate * (state - 1.0) * (1.0 + 0.1 * jnp.sum(state**2)) + turn + x

    def initial_state(self, x):
        return jnp.array([2.0, -1.0])

    def read(self, state, x):
        return state


class Tree(Substrate):
    """A state of dictionaries, tuples and a scalar."""

    stiffness: jax.Array

    def energy(self, state, x):
        (a, b), c = state["pair"], state["single"]
        return 0.5 * self.stiffness * (jnp.sum((a - x) ** 2) + jnp.sum((b - jnp.sum(a)) ** 2) + (c - jnp.sum(b)) ** 2)

    def initial_state(self, x):
        return {"pair": (jnp.zeros(2), jnp.zeros((2, 2))), "single": jnp.zeros(())}

    def read(self, state, x):
        return state["single"][None]


class Lattice(Substrate):
    """A square lattice of hardening springs: more state variables than the solver factorises."""

    stiffness: jax.Array

    def energy(self, state, x):
        springs = jnp.sum(jnp.diff(state, axis=0) ** 2) + jnp.sum(jnp.diff(state, axis=1) ** 2)
        return 0.5 * self.stiffness * springs + jnp.sum(0.05 * state**2 + 0.25 * state**4) - state[0] @ x

    def initial_state(self, x):
        return jnp.zeros((26, 26))

    def read(self, state, x):
        return state[-1]


class BoxedLattice(Lattice):
    def bounds(self, x):
        return jnp.full((26, 26), -0.1), jnp.full((26, 26), 0.3)


def random_wells(kind, seed):
    keys = jax.random.split(jax.random.key(seed), 2)
    root = jax.random.normal(keys[0], (6, 6))
    return kind(root @ root.T / 6 + 0.1 * jnp.eye(6)), jax.random.normal(keys[1], (6,))


@pytest.mark.parametrize("kind", [Quartic, Boxed, OneSided])
@pytest.mark.parametrize("seed", range(4))
def test_minima_agree_with_scipy(kind, seed):
    system, x = random_wells(kind, seed)
    matrix, force = np.asarray(system.stiffness), np.asarray(x)
    bounds = system.bounds(x)
    box = None if bounds is None else list(zip(*map(np.asarray, bounds), strict=True))
    for nudge, beta in ((None, 0.0), (Nudge(SquaredError(), jnp.array([1.0, -1.0]), jnp.asarray(0.4)), 0.4)):
        found = settle(system, x, nudge)
        energy = lambda s, b=beta: (
            0.5 * s @ matrix @ s + 0.25 * np.sum(s**4) - force @ s + 0.5 * b * np.sum((s[:2] - [1, -1]) ** 2)
        )
        slope = lambda s, b=beta: matrix @ s + s**3 - force + b * np.append(s[:2] - [1, -1], np.zeros(4))
        options = {"ftol": 1e-16, "gtol": 1e-13, "maxiter": 5000}
        wanted = scipy.optimize.minimize(energy, np.zeros(6), jac=slope, bounds=box, method="L-BFGS-B", options=options)
        assert found.converged
        np.testing.assert_allclose(found.energy, wanted.fun, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found.state, wanted.x, atol=1e-6)
        if box is None:
            assert np.max(np.abs(slope(np.asarray(found.state)))) < 1e-10


def test_variables_held_by_a_wall_are_pushed_against_it():
    system, x = random_wells(Boxed, 1)
    found = settle(system, x)
    lower, upper = system.bounds(x)
    force = system.force(found.state, x)
    held = (found.state == lower) | (found.state == upper)
    assert 0 < int(jnp.sum(held)) < 6
    assert bool(jnp.all(jnp.where(found.state == lower, force <= 1e-10, True)))
    assert bool(jnp.all(jnp.where(found.state == upper, force >= -1e-10, True)))
    assert float(jnp.max(jnp.where(held, 0.0, jnp.abs(force)))) < 1e-10


@pytest.mark.parametrize("start", [(1e-3, 0.2), (-1e-3, -0.4), (0.1, 1.0)])
def test_it_leaves_the_neighbourhood_of_a_saddle_for_the_minimum(start):
    found = settle(TwoWells(jnp.array(1.0)), jnp.zeros(1), None, jnp.array(start))
    assert found.converged
    np.testing.assert_allclose(found.state, [np.sign(start[0]), 0.0], atol=1e-9)


def test_newton_goes_to_the_saddle_that_is_near():
    system = TwoWells(jnp.array(1.0))
    found = system.relax(jnp.zeros(1), start=jnp.array([0.1, 0.3]), solver=Newton())
    assert found.converged
    np.testing.assert_allclose(found.state, [0.0, 0.0], atol=1e-9)


def test_a_flow_without_an_energy_reaches_its_stable_fixed_point():
    system, x = Flow(jnp.array(0.8)), jnp.array([0.3, -0.2])
    found = settle(system, x)
    assert found.converged
    assert found.energy is None
    assert np.max(np.abs(system.force(found.state, x))) < 1e-10
    jacobian = jax.jacfwd(lambda s: system.force(s, x))(found.state)
    assert np.max(np.linalg.eigvals(jacobian).real) < 0


def test_any_tree_is_a_state():
    x = jnp.array([0.5, -0.2])
    found = settle(Tree(jnp.array(2.0)), x)
    assert found.converged
    np.testing.assert_allclose(found.state["pair"][0], x, atol=1e-10)
    np.testing.assert_allclose(found.state["pair"][1], np.full((2, 2), 0.3), atol=1e-10)
    np.testing.assert_allclose(found.state["single"], 1.2, atol=1e-10)


def test_float32_stays_float32_and_converges():
    system, x = random_wells(Quartic, 2)
    small = eqx.tree_at(lambda s: s.stiffness, system, system.stiffness.astype(jnp.float32))
    nudge = Nudge(SquaredError(), jnp.array([1.0, -1.0], jnp.float32), jnp.asarray(0.3, jnp.float32))
    found = settle(small, x.astype(jnp.float32), nudge)
    assert found.state.dtype == jnp.float32
    assert found.converged
    np.testing.assert_allclose(
        found.state, settle(system, x, Nudge(SquaredError(), jnp.array([1.0, -1.0]), 0.3)).state, atol=1e-4
    )


@pytest.mark.parametrize("kind", [Lattice, BoxedLattice])
def test_states_too_large_to_factorise_converge(kind):
    system, x = kind(jnp.array(1.0)), jnp.linspace(-1, 1, 26)
    found = settle(system, x)
    assert found.state.size > DescendThenPolish().dense_size
    assert found.converged
    force = -jax.grad(system.energy)(found.state, x)
    bounds = system.bounds(x)
    gap = force if bounds is None else found.state - jnp.clip(found.state + force, *bounds)
    assert float(jnp.max(jnp.abs(gap))) < 1e-10


def test_too_few_steps_are_admitted():
    system, x = random_wells(Quartic, 0)
    found = system.relax(x, solver=DescendThenPolish(max_steps=1))
    assert not found.converged
    assert found.status == Status.out_of_steps
    assert float(found.residual) > 1e-6
    assert "still above the tolerance" in str(found)


def test_numbers_that_are_not_are_admitted():
    system, x = random_wells(Quartic, 0)
    found = settle(system, x.at[0].set(jnp.nan))
    assert found.status == Status.not_finite
    assert not found.usable
    assert found.steps <= 1


def test_an_equilibrium_is_recognised_without_a_step():
    system, x = random_wells(Quartic, 3)
    found = settle(system, x)
    again = settle(system, x, None, found.state)
    assert int(again.steps) == 0
    np.testing.assert_array_equal(again.state, found.state)


def test_a_batch_settles_like_its_examples():
    system, _ = random_wells(Quartic, 1)
    xs = jax.random.normal(jax.random.key(9), (5, 6))
    batch = relax_batch(system, xs)
    for k in range(5):
        np.testing.assert_allclose(batch.state[k], settle(system, xs[k]).state, atol=1e-9)
    assert bool(jnp.all(batch.converged))
    assert "5 equilibria" in str(batch)


@pytest.mark.parametrize("target", [(0.7, -0.4), (0.7, 0.0), (0.0, 0.0)])
def test_pins_hold_outputs_and_leave_the_rest_free(target):
    system, x = random_wells(Quartic, 1)
    found = settle(system, x, Pin(jnp.array(target)))
    assert found.converged
    np.testing.assert_allclose(found.state[:2], target, atol=1e-12)
    assert float(jnp.max(jnp.abs(system.force(found.state, x)[2:]))) < 1e-10


@pytest.mark.parametrize("unit", [1e-30, 1e-12, 1e12, 1e30])
def test_pins_hold_in_any_unit_of_energy(unit):
    """What is held and what is free has no unit of energy: the state is that of energies near 1."""
    system, x = random_wells(Quartic, 1)
    scaled = type("Scaled", (Quartic,), {"energy": lambda self, state, x: unit * Quartic.energy(self, state, x)})
    pin = Pin(jnp.array((0.7, -0.4)))
    found = settle(scaled(system.stiffness), x, pin)
    assert found.converged, str(found)
    np.testing.assert_allclose(found.state, settle(system, x, pin).state, atol=1e-9)


def test_a_tolerance_that_was_asked_for_is_used():
    system, x = random_wells(Quartic, 2)
    loose = system.relax(x, solver=DescendThenPolish(absolute_tolerance=1e-2, relative_tolerance=0.0))
    assert loose.converged
    assert float(loose.residual) <= 1e-2


class Cliff(Substrate):
    """Springs that pull beyond where the energy is infinite, and no force is felt."""

    stiffness: jax.Array

    def energy(self, state, x):
        return jnp.sum(jnp.where(state > 0.5, jnp.inf, 0.5 * self.stiffness * (state - 0.8) ** 2))

    def initial_state(self, x):
        return jnp.full(2, 0.1)

    def read(self, state, x):
        return state[-1:]


@pytest.mark.parametrize("solver", [DescendThenPolish(), DescendThenPolish(dense_size=1)], ids=["dense", "Krylov"])
def test_no_step_leads_to_an_infinite_energy(solver):
    net = Cliff(jnp.array([1.0, 2.0]))
    found = net.relax(jnp.zeros(1), solver=solver)
    assert found.status == Status.out_of_steps, str(found)
    assert bool(jnp.all(found.state <= 0.5))
    assert float(found.energy) < float(net.energy(jnp.full(2, 0.1), None))
    beyond = net.relax(jnp.zeros(1), start=jnp.full(2, 0.9), solver=solver)
    assert float(beyond.residual) == 0
    assert beyond.status == Status.not_finite, str(beyond)


class Walled(Substrate):
    """A quadratic energy within walls, of which sums are shown."""

    stiffness: jax.Array
    shown: jax.Array

    def energy(self, state, x):
        return state @ self.stiffness @ state / 2 - x @ state

    def initial_state(self, x):
        return jnp.full(4, 0.5)

    def read(self, state, x):
        return self.shown @ state

    def bounds(self, x):
        return jnp.zeros(4), jnp.ones(4)


def boxed_minimum(stiffness, field, shown, target):
    """The minimum within the unit box with shown @ s = target, over every choice of variables at a wall."""
    best, lowest = None, np.inf
    for walls in itertools.product((None, 0.0, 1.0), repeat=4):
        free = [k for k in range(4) if walls[k] is None]
        state = np.array([0.0 if wall is None else wall for wall in walls])
        matrix = np.zeros((len(free) + 2, len(free) + 2))
        matrix[: len(free), : len(free)] = stiffness[np.ix_(free, free)]
        matrix[: len(free), len(free) :], matrix[len(free) :, : len(free)] = shown[:, free].T, shown[:, free]
        right = np.concatenate([(field - stiffness @ state)[free], target - shown @ state])
        state[free] = np.linalg.lstsq(matrix, right, rcond=None)[0][: len(free)]
        feasible = np.all((state > -1e-9) & (state < 1 + 1e-9)) and np.allclose(shown @ state, target, atol=1e-9)
        value = state @ stiffness @ state / 2 - field @ state
        if feasible and value < lowest - 1e-12:
            best, lowest = state, value
    return best


@given(seed=st.integers(0, 10**6))
def test_a_pin_is_met_within_bounds(seed):
    draw = np.random.default_rng(seed)
    root = draw.normal(size=(4, 4))
    stiffness, field = root @ root.T + np.eye(4), 3 * draw.normal(size=4)
    shown = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -0.5]])
    target = shown @ draw.uniform(0.1, 0.9, 4)
    found = settle(Walled(jnp.asarray(stiffness), jnp.asarray(shown)), jnp.asarray(field), Pin(jnp.asarray(target)))
    assert found.converged, str(found)
    np.testing.assert_allclose(found.state, boxed_minimum(stiffness, field, shown, target), atol=1e-7)


@given(seed=st.integers(0, 10**6))
def test_a_pin_is_met_in_a_corner_of_the_bounds(seed):
    """Where bounds hold more variables than they need to, some push none: forces at the outputs are shared so. Only one
    state shows the target if every variable that is shown is at the wall that brings the output nearest to it.
    """
    draw = np.random.default_rng(seed)
    root = draw.normal(size=(4, 4))
    stiffness, field = root @ root.T + np.eye(4), 3 * draw.normal(size=4)
    shown = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -0.5]])
    corner = np.repeat(draw.integers(0, 2, 2), 2) ^ np.array([0, 0, 0, 1])
    target = shown @ corner
    found = settle(Walled(jnp.asarray(stiffness), jnp.asarray(shown)), jnp.asarray(field), Pin(jnp.asarray(target)))
    assert found.converged, str(found)
    np.testing.assert_allclose(found.state, corner, atol=1e-7)


@given(seed=st.integers(0, 10**6))
def test_what_pins_and_bounds_can_share_leaves_no_force(seed):
    """The forces are made of those of pins and of walls that are pushed against, at any number of variables; a force
    off the cone of these is left over as least squares within signs (SciPy) say.
    """
    draw = np.random.default_rng(seed)
    shown = draw.integers(-2, 3, (2, 4)).astype(float)
    state = draw.choice([0.0, 0.5, 1.0], 4, p=[0.4, 0.2, 0.4])
    force = draw.uniform(-0.4, 0.4, 4)
    net = Walled(jnp.eye(4), jnp.asarray(shown))
    pin = Pin(jnp.asarray(shown @ state))
    left, missed = net.stationarity(jnp.asarray(state), jnp.asarray(force + state), pin)
    np.testing.assert_array_equal(missed, 0)
    walls = np.diag(np.where(state == 0, 1.0, -1.0))[:, state != 0.5]
    matrix, least = np.concatenate([shown.T, walls], 1), np.full(2 + walls.shape[1], -np.inf)
    least[2:] = 0
    distance = np.sqrt(2 * scipy.optimize.lsq_linear(matrix, -force, (least, np.inf), tol=1e-14).cost)
    np.testing.assert_allclose(np.linalg.norm(left), distance, atol=1e-6)


@given(seed=st.integers(0, 10**6))
def test_a_pin_that_bounds_cannot_meet_is_infeasible(seed):
    """The distance of a target from all that is shown within the walls, by least squares within bounds, decides."""
    draw = np.random.default_rng(seed)
    shown, target = draw.normal(size=(2, 4)), 3 * draw.normal(size=2)
    distance = np.sqrt(2 * scipy.optimize.lsq_linear(shown, target, (0, 1), tol=1e-14).cost)
    assume(not 1e-8 < distance < 1e-2)
    stiffness, field = jnp.diag(jnp.array([1.0, 2.0, 3.0, 4.0])), jnp.asarray(3 * draw.normal(size=4))
    found = settle(Walled(stiffness, jnp.asarray(shown)), field, Pin(jnp.asarray(target)))
    assert found.status == (Status.infeasible if distance > 1e-3 else Status.converged), (distance, str(found))


class Probabilities(Quartic):
    """Outputs that stand at an edge, where the slopes of a likelihood are infinite or not a number."""

    def read(self, state, x):
        return jnp.maximum(state[:2], 0.0)


@pytest.mark.parametrize("kind", [Quartic, Boxed, OneSided, Probabilities, Flow])
@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_a_nudge_of_strength_zero_is_a_free_phase(kind, seed):
    draw, n = np.random.default_rng(seed), 2 if kind is Flow else 6
    system = Flow(jnp.asarray(draw.uniform(0.5, 2))) if kind is Flow else random_wells(kind, seed)[0]
    x, start = jnp.asarray(draw.normal(size=n)), jnp.asarray(0.1 * draw.normal(size=n))
    target = jnp.asarray(draw.uniform(size=2))
    for cost in (SquaredError(), NegativeLogLikelihood()):
        nothing = Nudge(cost, target, jnp.zeros(()))
        for begun in (None, start):
            free, still = settle_alike(system, x, None, begun), settle_alike(system, x, nothing, begun)
            np.testing.assert_allclose(still.state, free.state, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(still.residual, free.residual, atol=1e-12)
            assert still.status == free.status
            assert judged(system, free.state, x, nothing) == judged(system, free.state, x)


class Bistable(Substrate):
    """Two units that push each other round and saturate: rest at 0 is left in a spiral where the gain exceeds 1."""

    gain: jax.Array

    def force(self, state, x):
        turned = jnp.array([state[0] + 2 * state[1], state[1] - 2 * state[0]])
        return jnp.tanh(self.gain * turned) - state + x

    def initial_state(self, x):
        return jnp.zeros(2)

    def read(self, state, x):
        return state


@pytest.mark.parametrize(("gain", "status"), [(0.9, Status.converged), (1.1, Status.unstable)])
def test_a_fixed_point_that_the_flow_would_leave_is_unstable(gain, status):
    """Of the eigenvalues of the Jacobian, gain - 1 +- 2 i gain, the real part decides; the symmetric part agrees."""
    found = Bistable(jnp.asarray(gain)).relax(jnp.zeros(2))
    np.testing.assert_allclose(found.state, 0, atol=1e-12)
    assert found.status == status


class Turning(Substrate):
    """A linear force between a pair of variables: eigenvalues -damping +- 5 i, and a third variable nobody moves."""

    damping: jax.Array

    def force(self, state, x):
        a, b, idle = state
        return jnp.stack([5 * b - self.damping * a + x[0], -5 * a - self.damping * b + x[1], 0 * idle])

    def initial_state(self, x):
        return jnp.ones(3)

    def read(self, state, x):
        return state[:2]


@pytest.mark.parametrize(
    ("damping", "status"), [(1e-3, Status.converged), (0.0, Status.unstable), (-1e-3, Status.unstable)]
)
def test_a_centre_which_the_flow_circles_for_ever_is_no_rest(damping, status):
    """A variable that no force moves, and that no output shows, is a gauge and stays where it is."""
    found = Turning(jnp.asarray(damping)).relax(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(5 * jnp.array([found.state[1], -found.state[0]]), [-1, -2], atol=1e-2)
    assert found.status == status


class Populations(Substrate):
    """Predators and prey of rates a to d, damped a little: near (c/d, a/b) they turn at a rate of sqrt(a c), and fade
    at one of damping (c/d + a/b)/2.
    """

    rates: jax.Array
    damping: jax.Array

    def force(self, state, x):
        a, b, c, d = self.rates
        prey, predators = state
        grown = a - b * predators - self.damping * (prey - c / d)
        return jnp.stack([prey * grown, predators * (d * prey - c - self.damping * (predators - a / b))]) + x

    def initial_state(self, x):
        return jnp.ones(2)

    def read(self, state, x):
        return state


@given(seed=st.integers(0, 10**6), damping=st.sampled_from([1e-8, 0.0, -1e-8]))
def test_a_state_off_by_its_residual_is_judged_as_the_fixed_point(seed, damping):
    draw = np.random.default_rng(seed)
    a, b, c, d = rates = np.exp(draw.normal(0, 0.5, 4))
    rest = np.array([c / d, a / b])
    start = jnp.asarray(rest * np.exp(draw.uniform(-0.3, 0.3, 2)))
    found = settle(Populations(jnp.asarray(rates), jnp.asarray(damping)), jnp.zeros(2), start=start)
    np.testing.assert_allclose(found.state, rest, rtol=1e-6)
    assert found.status == (Status.converged if damping > 0 else Status.unstable), str(found)


class Pendula(Substrate):
    torsion: jax.Array

    def energy(self, angle, torque):
        springs = 0.5 * jnp.sum(self.torsion * jnp.diff(angle) ** 2)
        return springs + jnp.sum(1 - jnp.cos(angle)) - torque[0] * angle[0]

    def initial_state(self, torque):
        return jnp.zeros(self.torsion.size + 1, self.torsion.dtype)

    def read(self, angle, torque):
        return angle[-1:]


@pytest.mark.parametrize("torque", [1.0, 0.1, 1e-2, 1e-4, 1e-6, 1e-7, 1e-8, 1e-12])
def test_an_energy_whose_terms_round_by_more_than_it_holds_settles(torque):
    """1 - cos is a difference of numbers of size 1: at small angles its rounding hides what a step gains."""
    net, x = Pendula(jnp.array([2.0, 1.0])), torque * jnp.linspace(-1.0, 1.0, 9)[:, None]
    free = _settle_all(net, x)
    assert bool(free.converged.all())
    for beta in (0.1, -0.1, 0.5):
        nudged = _settle_all(net, x, Nudge(SquaredError(), 0.3 * x, jnp.asarray(beta)), free.state)
        assert bool(nudged.converged.all())
        for angle, pushed in zip(nudged.state, np.asarray(x), strict=True):

            def force(a, pushed=pushed, beta=beta):
                bent = np.diff(a) * np.asarray(net.torsion)
                held = np.append(bent, 0.0) - np.insert(bent, 0, 0.0) - np.sin(a)
                return held + np.array([pushed[0], 0.0, beta * (0.3 * pushed[0] - a[-1])])

            exact = scipy.optimize.root(force, np.asarray(angle), tol=1e-15).x
            np.testing.assert_allclose(angle, exact, rtol=1e-9, atol=1e-9 * torque)


_settle_all = eqx.filter_jit(relax_batch)
