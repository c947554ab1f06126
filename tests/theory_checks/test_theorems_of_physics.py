"""Theorems of physics: each holds on systems that obey it, fails on twins that do not, and refuses all others."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learning import CrossEntropy
from substrates import (
    DrivenNetwork,
    ElasticNetwork,
    FreeFermionChain,
    HamiltonianSubstrate,
    HopfieldNetwork,
    IsingModel,
    Nudge,
    OscillatorNetwork,
    PredictiveCodingNetwork,
    QuantumOscillatorNetwork,
    RecurrentNetwork,
    ResistorNetwork,
    SkewGradient,
    Substrate,
    Trajectory,
    TransverseFieldIsing,
)
from substrates.classical.ising.ensemble import BoltzmannEnsemble
from substrates.classical.predictive_coding.projected_gradient import ProjectedGradient
from substrates.classical.trajectory import InitialValueTrajectory, MeanSquare, Samples
from substrates.nudge import SquaredError
from substrates.solvers.generic import Newton
from theory_checks.theorems import circuits, dynamics, predictive, quantum_systems, stationary, symmetries, thermal
from theory_checks.theorems.theorem import NotApplicableError

MODULES = circuits, quantum_systems, thermal, dynamics, stationary, symmetries, predictive
THEOREMS = {theorem.name: theorem for module in MODULES for theorem in module.THEOREMS}
TRIANGLE = [(0, 1), (1, 2), (0, 2)]
X = np.array([1.2])


def like(system, kind):
    """The same system as another class with the same fields."""
    return kind(**{field.name: getattr(system, field.name) for field in dataclasses.fields(system) if field.init})


def hold(findings):
    assert findings
    assert all(finding.holds for finding in findings), "\n".join(map(str, findings))
    return findings


def fail(findings, *words):
    """That just the findings fail whose names hold one of some words."""
    failed = [finding.compared for finding in findings if not finding.holds]
    assert failed
    for word in words:
        assert any(word in name for name in failed), failed
    return failed


NAMES = (
    "co-content",
    "diode-complementarity",
    "coordinate-descent",
    "universal-approximation",
    "quantum",
    "onsager-reciprocity",
    "gibbs",
    "free-fermions",
    "gaussian",
    "lagrangian-boundary",
    "hamiltonian-echo",
    "skew-gradient",
    "driven",
    "natural-frequencies",
    "force-matching",
    "predictive-coding",
    "predictive-coding-kernel",
    "feed-forward-residual",
    "gauge-symmetries",
    "homogeneous-limits",
)


QUICK = (
    "co-content",
    "diode-complementarity",
    "free-fermions",
    "driven",
    "onsager-reciprocity",
    "predictive-coding-kernel",
)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NAMES])
def test_it_holds_on_its_own_example(name):
    hold(THEOREMS[name].check())


def test_batches_are_taken_example_by_example():
    """As theorems of any system take them, with a target that this one does not ask for."""
    net, xs = lattice(diodes=[(1, -1), (3, -1), (-1, 2)]), np.array([[1.2], [-0.7]])
    findings = hold(circuits.diode_complementarity(net, xs, np.zeros((2, 1))))
    singles = [circuits.diode_complementarity(net, x) for x in xs]
    assert [str(one) for one in findings] == [
        str(dataclasses.replace(one, compared=f"example {k}: {one.compared}"))
        for k, single in enumerate(singles, 1)
        for one in single
    ]


@pytest.mark.parametrize(
    ("name", "given", "error", "message"),
    [
        ("co-content", (None, X), TypeError, "substrate: wanted the system that x and y are for"),
        ("co-content", ("resistor",), TypeError, "x: wanted that of one example or of a batch, got None; give none"),
        ("gaussian", ("oscillators", X), TypeError, "y: wanted that of one example"),
        ("gaussian", ("oscillators", np.zeros((2, 1)), np.zeros((3, 1))), ValueError, "the same leading batch axis"),
    ],
)
def test_what_is_missing_is_told(name, given, error, message):
    systems = {"resistor": lattice, "oscillators": oscillators}
    given = [systems[one]() if isinstance(one, str) else one for one in given]
    with pytest.raises(error, match=message):
        THEOREMS[name].check(*given)


def test_theorems_say_what_they_are():
    assert sorted(THEOREMS) == sorted(NAMES)
    for theorem in THEOREMS.values():
        assert theorem.statement.count("$") % 2 == 0
        assert theorem.assumptions
        assert theorem.source
        assert theorem.applies_to
        assert theorem.check.__doc__


def test_32_bits_are_refused():
    net = OscillatorNetwork.from_edges(TRIANGLE, coupling=1.0, outputs=[2], references={0: 0.0}, frequency=0.0)
    net = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, net)
    with pytest.raises(NotApplicableError, match="bounds are for 64 bits, the parameters are float32"):
        stationary.natural_frequencies(net, jnp.zeros(0), jnp.zeros(1))


# circuits


def lattice(kind=ResistorNetwork, **elements):
    edges = [(0, 1), (1, 2), (2, 3), (3, 0), (1, 3), (2, -1)]
    siemens = [1.0, 0.5, 2.0, 0.7, 0.3, 0.4]
    words = {"inputs": [0], "outputs": [2], "conductance": siemens, "current_sources": [(1, 3, 0.8)]}
    return kind.from_edges(edges, 4, **{**words, **elements})


class Backwards(ResistorNetwork):
    """Current sources count in the energy with the wrong sign, ideal diodes conduct against their arrows."""

    def energy(self, state, x):
        drops = self.flow(state, x).drops[-self.source_current.size :]
        return ResistorNetwork.energy(self, state, x) - 2 * jnp.sum(self.source_current * drops)

    def diode_currents(self, state, x):
        return -ResistorNetwork.diode_currents(self, state, x)


def test_co_content():
    hold(circuits.co_content(lattice(rails={1: 0.4}), X))
    fail(circuits.co_content(lattice(Backwards), X), "dP/dv")
    with pytest.raises(NotApplicableError, match="Ideal diodes have no branch law"):
        circuits.co_content(lattice(diodes=[(-1, 1)]), X)
    with pytest.raises(NotApplicableError, match="sources between nodes"):
        circuits.co_content(lattice(voltage_sources=[(1, 3, 0.4)]), X)


def test_diode_complementarity():
    diodes = {"diodes": [(1, -1), (3, -1), (-1, 2)]}
    hold(circuits.diode_complementarity(lattice(**diodes), X))
    fail(circuits.diode_complementarity(lattice(Backwards, **diodes), X), "minus their currents", "leave free nodes")
    with pytest.raises(NotApplicableError, match="no ideal diodes"):
        circuits.diode_complementarity(lattice(), X)


def test_coordinate_descent():
    net = HopfieldNetwork.layered((3, 4, 2), key=jax.random.key(0))
    hold(circuits.coordinate_descent(net, np.array([0.5, -0.8, 0.3])))
    coding, x = predictive._network("bounded"), predictive._X
    nudge, start = Nudge(SquaredError(), jnp.asarray(predictive._Y), jnp.asarray(0.1)), coding.start(jnp.asarray(x))
    stepped = circuits.coordinate_descent(coding, x, nudge=nudge, start=start, sweep=ProjectedGradient(1))
    fail(stepped, "after each sweep against that before")
    with pytest.raises(NotApplicableError, match="step along errors"):
        circuits.coordinate_descent(coding, x)
    with pytest.raises(NotApplicableError, match="does not settle DrivenNetwork by sweeps"):
        circuits.coordinate_descent(chain(), jnp.zeros(()))


def test_universal_approximation():
    draw = np.random.default_rng(1)
    sizes = [(2, 4), (4, 3), (3, 1)]
    weights, biases = [draw.normal(size=s) / s[0] ** 0.5 for s in sizes], [draw.normal(size=s[1]) for s in sizes]
    biases[-1] -= 4.0  # outputs of both signs: the last layer is linear
    hold(circuits.universal_approximation(weights=weights, biases=biases))

    def without_amplifiers(weights, biases, gamma):
        net = ResistorNetwork.from_relu(weights, biases, gamma)
        return eqx.tree_at(lambda n: n.gain, net, jnp.ones_like(net.gain))

    fail(
        circuits.universal_approximation(weights=weights, biases=biases, build=without_amplifiers),
        "order",
        "smallest gamma",
    )
    with pytest.raises(NotApplicableError, match="without error"):
        circuits.universal_approximation(weights=weights[:1], biases=biases[:1])
    with pytest.raises(NotApplicableError, match="circuits that are built of a perceptron"):
        circuits.universal_approximation(lattice(), X)


# quantum systems


class MeasuredBackwards(TransverseFieldIsing):
    """The transverse fields' observables are read with the wrong sign."""

    def contrast(self, plus, minus, xs, nudges_plus=None, nudges_minus=None):
        found = TransverseFieldIsing.contrast(self, plus, minus, xs, nudges_plus, nudges_minus)
        return eqx.tree_at(lambda n: n.transverse_field, found, replace_fn=jnp.negative)


def spins(kind=TransverseFieldIsing, **options):
    words = {"coupling": [0.9, -0.5, 0.7], "transverse_field": [0.8, 1.1, 0.6], "longitudinal_field": [0.5, -0.2, 0.3]}
    return kind.from_edges(TRIANGLE, **{**words, "inputs": [0], "outputs": ["Z1", "X2"], **options})


def test_quantum():
    x, y, z = (np.array(m) for m in ([[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]))
    levels = HamiltonianSubstrate.from_operators([x, y], [0.7, 0.4], drives=[z], outputs=[y])
    hold(quantum_systems.quantum(levels, np.array([0.5]), np.array([0.2])))
    fail(quantum_systems.quantum(spins(MeasuredBackwards), np.array([0.2]), np.array([0.5, 0.1])), "centred contrast")
    flat = spins(transverse_field=0.0, longitudinal_field=0.0, coupling=1.0, inputs=[])
    with pytest.raises(NotApplicableError, match=r"degenerate|does not come to rest"):
        quantum_systems.quantum(flat, np.zeros(0), np.zeros(2))


class Twisted(FreeFermionChain):
    """The couplings of the matrix have the wrong sign."""

    def matrix(self, x, weights=None):
        return 2 * jnp.diag(jnp.diagonal(FreeFermionChain.matrix(self, x))) - FreeFermionChain.matrix(self, x, weights)


def test_free_fermions():
    hold(
        quantum_systems.free_fermions(
            FreeFermionChain.chain(3, coupling=0.8, transverse_field=[1.1, 0.4, 0.9]), np.zeros(0)
        )
    )
    twisted = Twisted.chain(3, coupling=0.8, transverse_field=[1.1, 0.4, 0.9])
    assert fail(quantum_systems.free_fermions(twisted, np.zeros(0))) == ["<X_i> and <Z_i Z_(i+1)>, entries of U V'"]
    with pytest.raises(NotApplicableError, match="11 spins are too many"):
        quantum_systems.free_fermions(FreeFermionChain.chain(11), np.zeros(0))


class HalfAQuantum(QuantumOscillatorNetwork):
    """Positions spread half as much as they do."""

    def covariance(self, state):
        return QuantumOscillatorNetwork.covariance(self, state) / 2


def oscillators(kind=QuantumOscillatorNetwork, **options):
    return kind.chain(2, stiffness=0.8, onsite_stiffness=[1.0, 0.6], inputs=[0], outputs=[1], **options)


def test_gaussian():
    x, y = np.array([0.6]), np.array([0.3])
    hold(quantum_systems.gaussian(oscillators(temperature=0.6, drive="anchor"), x, y))
    fail(quantum_systems.gaussian(oscillators(HalfAQuantum), x, y), "Cov(x) against", "Cov(p) against", "virial")
    with pytest.raises(NotApplicableError, match="no zero-point motion"):
        quantum_systems.gaussian(oscillators(hbar=0.0), x, y)


# temperature and limits


class TooQuiet(BoltzmannEnsemble):
    """Fluctuations come out half as large as they are."""

    def covariance(self, states, xs, nudges):
        mean, spread = BoltzmannEnsemble.covariance(self, states, xs, nudges)
        return mean, jax.tree.map(lambda leaf: leaf / 2, spread)


def test_gibbs():
    model = IsingModel.from_edges(TRIANGLE, coupling=[0.6, -0.9, 0.4], field=[0.2, -0.1, 0.3], inputs=[0], outputs=[2])
    x, y = np.array([0.8]), np.array([0.3])
    hold(thermal.gibbs(model.ensemble(2.0), x, y, cost=lambda o, y: jnp.sum(jnp.exp(o * y))))
    assert len(fail(thermal.gibbs(like(model.ensemble(2.0), TooQuiet), x, y), "-Cov(C, dE/dtheta)/T")) == 1
    with pytest.raises(NotApplicableError, match="exact ensembles of spins, got IsingModel"):
        thermal.gibbs(model, x, y)


class Leaking(TransverseFieldIsing):
    """Transverse fields tilt: a part of them acts along Z."""

    def hamiltonian(self, x, weights=None):
        tilted = self.longitudinal_field + 0.2 * self.transverse_field
        straight = eqx.tree_at(lambda n: n.longitudinal_field, self, tilted)
        return TransverseFieldIsing.hamiltonian(straight, x, weights)


def test_homogeneous_limits():
    hold(thermal.homogeneous_limits(spins(), np.array([0.4]), np.zeros(2)))
    fail(
        thermal.homogeneous_limits(spins(Leaking), np.array([0.4]), np.zeros(2)),
        "the order of E - E_Ising",
        "extrapolated",
    )
    with pytest.raises(NotApplicableError, match="classical ground state is degenerate"):
        thermal.homogeneous_limits(spins(longitudinal_field=0.0, inputs=[]), np.zeros(0), np.zeros(2))
    with pytest.raises(NotApplicableError, match="quantum oscillators and ensembles, got HopfieldNetwork"):
        thermal.homogeneous_limits(HopfieldNetwork.layered((2, 3, 1), key=jax.random.key(0)), np.zeros(2), X)


# motion


class Loose(Trajectory):
    """Its last end gives way to a nudge: the two phases differ in a boundary condition."""

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        if nudge is not None:
            self = eqx.tree_at(lambda n: n.ends, self, self.ends.at[1].add(0.5 * nudge.beta))
        return Trajectory.relax(self, x, nudge, start, key=key, solver=solver)


def test_lagrangian_boundary():
    law, words = dynamics._pendulums(), {"duration": 1.0, "meter": Samples([1], [2, 3]), "n_inputs": 2}
    path = Trajectory.between(law, [0.0, 0.2], [1.0, -0.3], steps=5, **words)
    fail(dynamics.lagrangian_boundary(like(path, Loose), dynamics._X, np.array([0.3, -0.2])), "centred contrast")
    launch = dataclasses.replace(dynamics._launch(), meter=Samples([0, 1], [0, 12]))
    (finding,) = hold(dynamics.lagrangian_boundary(launch, dynamics._X, dynamics._Y))
    assert np.linalg.norm(finding.measured) > 0.5, "the naive contrast of launches is wrong by as much as the gradient"
    with pytest.raises(NotApplicableError, match="friction has no action"):
        dynamics.lagrangian_boundary(dynamics._launch(friction=0.1), dynamics._X, dynamics._Y)


@pytest.mark.slow
def test_a_loop_has_no_boundary_term():
    meter, period = MeanSquare([0, 1], 1, 4), 2 * np.pi
    loop = Trajectory.loop(dynamics._pendulums(), 2, duration=period, steps=6, meter=meter, n_inputs=2)
    hold(dynamics.lagrangian_boundary(loop, dynamics._X, np.array([0.3, 0.1])))


class Rubbing(InitialValueTrajectory):
    """Momenta are lost, and nothing says so."""

    def _glide(self, position, momentum, push):
        half, there = InitialValueTrajectory._glide(self, position, 0.99 * momentum, push)
        return half, there


def test_hamiltonian_echo():
    one = dataclasses.replace(dynamics._launch(), meter=MeanSquare([0, 1], 2, 9))
    hold(dynamics.hamiltonian_echo(one, dynamics._X, np.array([0.3, -0.2]), cost=CrossEntropy()))
    rubbing = like(dynamics._launch(), Rubbing)
    fail(dynamics.hamiltonian_echo(rubbing, dynamics._X, dynamics._Y), "how far from the launch", "centred contrast")
    with pytest.raises(NotApplicableError, match="friction does not run back"):
        dynamics.hamiltonian_echo(dynamics._launch(friction=0.1), dynamics._X, dynamics._Y)


# saddles, driven motions, locked phases, forces


class Game(SkewGradient):
    """Phi = a p^2/2 + p^4/4 + p q - b q^2/2 - x p, where p goes down and q up."""

    a: jax.Array
    b: jax.Array

    def energy(self, state, x):
        p, q = state
        return self.a * p**2 / 2 + p**4 / 4 + p * q - self.b * q**2 / 2 - jnp.sum(x) * p

    def initial_state(self, x):
        return jnp.zeros((), self.a.dtype), jnp.zeros((), self.a.dtype)

    def read(self, state, x):
        return jnp.stack(state)

    def signature(self, state):
        return 1.0, -1.0


class OutsideGame(Game):
    """The nudge pulls both players towards the target, whichever way they go."""

    def total_force(self, state, x, nudge=None):
        inside, alone = Game.total_force(self, state, x, nudge), self.force(state, x)
        return jax.tree.map(lambda q, f, g: f + q * (g - f), self.signature(state), alone, inside)


def test_skew_gradient():
    x, y, values = np.array([0.7]), np.array([0.1, 0.4]), (jnp.asarray(0.6), jnp.asarray(0.5))
    hold(stationary.skew_gradient(Game(*values), x, y))
    fail(stationary.skew_gradient(OutsideGame(*values), x, y), "centred contrast")
    with pytest.raises(NotApplicableError, match="does not come to rest"):
        stationary.skew_gradient(Game(jnp.asarray(0.6), jnp.asarray(-1.1)), x, y)


class Conjugated(DrivenNetwork):
    """Powers are measured: |X_i - X_j|^2/2 of springs and so on, in place of squares without conjugates."""

    def _stored(self, real, imaginary, k, g, m):
        energy = jnp.sum(((real**2 + imaginary**2) / 2) @ k) + 0 * jnp.sum(g)
        return energy if m is None else energy - self.frequencies**2 @ ((real**2 + imaginary**2) / 2 @ m)


def chain(kind=DrivenNetwork, **options):
    words = {"inputs": [0], "outputs": [1], "frequencies": [0.7, 1.6], "onsite_damping": 0.3, "reading": "quadratures"}
    return kind.from_edges([(0, 1)], **{**words, **options})


def test_driven():
    x, y = np.array([[0.8], [-0.5]]), np.array([0.2, -0.1, 0.4, 0.3])
    hold(stationary.driven(chain(), x, y))
    assert len(fail(stationary.driven(chain(Conjugated), x, y))) == 2
    with pytest.raises(NotApplicableError, match="Mean squares are read"):
        stationary.driven(chain(reading="power"), x, y[:1])


class RunningBack(OscillatorNetwork):
    """Natural frequencies turn the oscillators the other way."""

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        other = eqx.tree_at(lambda n: n.frequency, self, -self.frequency)
        return OscillatorNetwork.relax(other, x, nudge, start, key=key, solver=solver)


def rotors(kind=OscillatorNetwork, **options):
    words = {"coupling": [1.0, 0.8, 0.5], "frequency": [0.0, 0.3, -0.2], "inputs": [0], "outputs": [2]}
    return kind.from_edges(TRIANGLE, **{**words, **options})


def test_natural_frequencies():
    x, y = np.array([0.4]), np.array([0.9])
    hold(stationary.natural_frequencies(rotors(), x, y))
    fail(stationary.natural_frequencies(rotors(RunningBack), x, y), "-dphi/dbeta")
    with pytest.raises(NotApplicableError, match="no natural frequencies"):
        stationary.natural_frequencies(rotors(frequency=None), x, y)
    with pytest.raises(NotApplicableError, match="does not come to rest"):
        stationary.natural_frequencies(rotors(frequency=[0.0, 3.0, 0.0]), x, y)


class Landscape(Substrate):
    """E = s'Ks/2 - b's + sum sin s."""

    K: jax.Array
    b: jax.Array

    def energy(self, state, x):
        return state @ self.K @ state / 2 - self.b @ state + jnp.sum(jnp.sin(state))

    def initial_state(self, x):
        return jnp.zeros(2)

    def read(self, state, x):
        return state


class Whirling(Landscape):
    """Its force turns besides, and has no energy."""

    solver = Newton()

    def force(self, state, x):
        return Landscape.force(self, state, x) + 0.3 * jnp.stack([state[1], -state[0]])


def landscape(kind=Landscape):
    return kind(jnp.asarray([[2.0, 0.4], [0.4, 3.0]]), jnp.asarray([0.5, -0.3]))


def test_force_matching():
    points, wanted = np.random.default_rng(0).normal(size=(2, 3, 2))
    hold(stationary.force_matching(landscape(), np.zeros(0)))
    chosen = {"points": points, "wanted": wanted, "stiffnesses": [1e2, 1e3, 1e4]}
    hold(stationary.force_matching(landscape(), np.zeros(0), **chosen))
    soft = stationary.force_matching(landscape(), np.zeros(0), softening=0.5, **chosen)
    assert len(fail(soft, "the error of the gradient at the largest k")) == 2
    clipped = HopfieldNetwork.layered((2, 3, 1), key=jax.random.key(0))
    with pytest.raises(NotApplicableError, match="without bounds, got HopfieldNetwork"):
        stationary.force_matching(clipped, np.zeros(2))


# symmetries


def test_onsager_reciprocity():
    hold(symmetries.onsager_reciprocity(spins(), np.array([0.2])))
    fail(symmetries.onsager_reciprocity(landscape(Whirling), np.zeros(0)), "against its transpose")
    recurrent = RecurrentNetwork.layered((2, 3, 2), key=jax.random.key(0))
    for odd in (recurrent, lattice(controlled_sources=[(3, -1, 1, 2, 0.5)], outputs=[2, 1])):
        x = np.array([0.5, -0.4])[: odd.input_size]
        finding = hold(symmetries.onsager_reciprocity(odd, x))[-1]
        assert np.max(np.abs(finding.predicted)) > 1e-4, "nothing is left of reciprocity where there is no energy"
    with pytest.raises(NotApplicableError, match="nothing to be reciprocal with"):
        symmetries.onsager_reciprocity(lattice(), X)
    with pytest.raises(NotApplicableError, match="do not answer smoothly"):
        symmetries.onsager_reciprocity(HopfieldNetwork.layered((2, 3, 2), key=jax.random.key(0)), np.zeros(2))


class Compass(OscillatorNetwork):
    """Something outside holds all phases to one direction."""

    def energy(self, state, x):
        return OscillatorNetwork.energy(self, state, x) - 0.5 * jnp.sum(jnp.cos(state))


def test_gauge_symmetries():
    loose = lattice(current_sources=[(1, 3, 0.8)], rails={3: 0.4}, inputs=[0, 2], outputs=[1])
    free = ResistorNetwork.from_edges(TRIANGLE, inputs=[0], outputs=[2], conductance=1.0, rails={1: 0.4})
    hold(symmetries.gauge_symmetries(free, X))
    fail(symmetries.gauge_symmetries(rotors(Compass, frequency=None), np.array([0.4])), "energies at random states")
    refused = [
        (loose, "lead to ground fix the voltages"),
        (rotors(second_harmonic=0.3, frequency=None), "hold the phases to two directions"),
        (rotors(), "energy of a common phase is that of their sum"),
    ]
    for net, words in refused:
        with pytest.raises(NotApplicableError, match=words):
            symmetries.gauge_symmetries(net, np.zeros(net.input_size))
    held = ElasticNetwork.from_edges(
        TRIANGLE, positions=[[0.0, 0.0], [1.0, 0.0], [0.4, 0.8]], inputs=[], outputs=[2], clamped=[0, 1]
    )
    with pytest.raises(NotApplicableError, match="fix the network in space"):
        symmetries.gauge_symmetries(held, np.zeros(0))


# layers


class Deaf(PredictiveCodingNetwork):
    """Half of what comes back from above is lost."""

    def feedback(self, k, state, x, drives, errors):
        return PredictiveCodingNetwork.feedback(self, k, state, x, drives, errors) / 2


def test_predictive_coding():
    net = predictive._network("bounded")
    hold(predictive.predictive_coding(net, predictive._X, predictive._Y, cost=CrossEntropy()))
    deaf = like(dataclasses.replace(net, solver=ProjectedGradient(8)), Deaf)
    with pytest.raises(NotApplicableError, match="does not come to rest"):
        predictive.predictive_coding(deaf, predictive._X, predictive._Y)


def test_predictive_coding_kernel():
    x, y = predictive._X, predictive._Y
    two = PredictiveCodingNetwork.dense((3, 5, 2), key=jax.random.key(4), gain=1.7)
    hold(predictive.predictive_coding_kernel(two, x, y, cost=CrossEntropy()))
    together = lambda count: ProjectedGradient(count, synchronous=True)
    fail(
        predictive.predictive_coding_kernel(predictive._network("bounded"), x, y, sweeps=together), "after L and L + 1"
    )
    fail(predictive.predictive_coding_kernel(like(predictive._network("bounded"), Deaf), x, y), "after L and L + 1")
    with pytest.raises(NotApplicableError, match="nothing before the first sweep"):
        predictive.predictive_coding_kernel(PredictiveCodingNetwork.dense((3, 2), key=jax.random.key(0)), x, y)
    with pytest.raises(NotApplicableError, match="A layer sleeps"):
        predictive.predictive_coding_kernel(
            PredictiveCodingNetwork.dense((3, 5, 4, 4, 2), key=jax.random.key(3), gain=1.7), x, y
        )


class WithoutOwnEnergy(HopfieldNetwork):
    """Half of the units' own energy is forgotten."""

    def energy(self, state, x):
        return HopfieldNetwork.energy(self, state, x) - 0.25 * sum(jnp.sum(s**2) for s in state)


def test_feed_forward_residual():
    x = np.array([0.5, -0.8, 0.3])
    net = HopfieldNetwork.layered((3, 4, 3, 2), key=jax.random.key(1), gain=0.8)
    findings = hold(predictive.feed_forward_residual(net, x))
    assert findings[-1].measured > 0.05, "where layers do not agree, the pass ends elsewhere"
    assert hold(predictive.feed_forward_residual())[-1].measured < 1e-9
    fail(predictive.feed_forward_residual(like(net, WithoutOwnEnergy), x), "forces after the pass")
    with pytest.raises(NotApplicableError, match="not convex"):
        predictive.feed_forward_residual(HopfieldNetwork.layered((3, 4, 3, 2), key=jax.random.key(1), gain=4.0), x)
