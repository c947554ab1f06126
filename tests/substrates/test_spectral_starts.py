"""Starts from the spectrum of the couplings: the spherical model's ground state, and rings that lock from there."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

from learning import EquilibriumPropagation, SquaredError
from substrates import OscillatorNetwork
from substrates.classical.oscillator.spectral import spectral_phases

N, RINGS, SPREAD = 24, 30, 0.1
RING = np.array([(i, (i + 1) % N) for i in range(N)])
NONE = jnp.zeros(0)
turned = lambda a, b: np.abs(np.angle(np.exp(1j * (np.asarray(a) - np.asarray(b)))))


def drawn():
    """Couplings of both signs around rings, half of them frustrated, and natural frequencies of mean 0."""
    rng = np.random.default_rng(0)
    omega = rng.normal(0, SPREAD, (RINGS, N))
    return rng.choice([-1.0, 1.0], (RINGS, N)), omega - omega.mean(axis=1, keepdims=True)


def ring(coupling, omega, **options):
    return OscillatorNetwork.from_edges(RING, N, coupling=coupling, frequency=omega, references={0: 0.0}, **options)


def twist(coupling, phases):
    """The turns of the phases around the ring, beyond the half turn of every negative coupling: n, or n + 1/2."""
    whole = np.concatenate([[0.0], phases])
    angles = np.roll(whole, -1) - whole + np.where(coupling < 0, np.pi, 0.0)
    return np.abs(np.sum(np.angle(np.exp(1j * angles)))) / (2 * np.pi)


def integrated(couplings, omegas, starts):
    """Kuramoto's equation on all rings, the first phase of each held: the phases after a long time."""

    def velocity(_, state):
        phi = np.concatenate([np.zeros((len(omegas), 1)), state.reshape(len(omegas), N - 1)], axis=1)
        flow = couplings * np.sin(np.roll(phi, -1, axis=1) - phi)
        return (omegas + flow - np.roll(flow, 1, axis=1))[:, 1:].ravel()

    found = solve_ivp(velocity, (0, 800), starts.ravel(), rtol=1e-5, atol=1e-7)
    return found.y[:, -1].reshape(starts.shape)


def test_from_the_spectrum_rings_lock_without_a_twist_and_from_random_phases_often_with_one():
    """The least twist that the signs of the couplings allow, 0 or 1/2; with more, couplings pull less."""
    settle = eqx.filter_jit(lambda net, key: (net.start(NONE, key), net.relax(NONE, key=key)))
    keys = jax.random.split(jax.random.key(0), RINGS)
    shares = {}
    for kind in ("spectral_starts", "random_starts"):
        found = [settle(ring(w, omega, **{kind: True}), key) for w, omega, key in zip(*drawn(), keys, strict=True)]
        assert all(bool(settled.converged) for _, settled in found)
        starts, states = (np.stack(part) for part in zip(*((s, e.state) for s, e in found), strict=True))
        flowed = integrated(*drawn(), starts)
        if kind == "spectral_starts":
            assert turned(flowed, states).max() < 1e-2
        for name, phases in ((kind, states), (f"{kind}, flow", flowed)):
            shares[name] = np.mean([twist(w, phi) < 0.6 for w, phi in zip(drawn()[0], phases, strict=True)])
    assert shares["spectral_starts"] == shares["spectral_starts, flow"] == 1
    assert max(shares["random_starts"], shares["random_starts, flow"]) < 0.8


def test_without_a_second_mode_it_is_the_spherical_models_ground_state():
    """All to all, with couplings of both signs that the phases can undo; against a minimiser on the sphere."""
    rng = np.random.default_rng(0)
    signs, n = rng.choice([-1.0, 1.0], 6), 6
    matrix = np.outer(signs, signs) * (1 - np.eye(n))
    field, field_phase = rng.uniform(0.2, 2.0, n), rng.uniform(-np.pi, np.pi, n)
    net = OscillatorNetwork.from_matrix(matrix, field=field, field_phase=field_phase, spectral_starts=True)
    pull = field * np.exp(1j * field_phase)

    def energy(parts):
        z = (parts[:n] + 1j * parts[n:]) * np.sqrt(n) / np.linalg.norm(parts)
        return -0.5 * np.real(z.conj() @ matrix @ z) - np.real(pull.conj() @ z)

    runs = [minimize(energy, rng.normal(size=2 * n), method="BFGS", options={"gtol": 1e-10}) for _ in range(10)]
    best = min(runs, key=lambda run: run.fun).x
    assert turned(net.start(NONE), np.angle(best[:n] + 1j * best[n:])).max() < 1e-5


def test_cosines_of_a_start_without_fields_are_the_nearest_to_the_couplings():
    """Among arrows in a plane, whatever their lengths: no small change brings z z' nearer to W."""
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(7, 7))
    matrix = np.triu(matrix, 1) + np.triu(matrix, 1).T
    values = np.linalg.eigvalsh(matrix)
    phases = OscillatorNetwork.from_matrix(matrix, spectral_starts=True).start(NONE)
    best = minimize(
        lambda z: np.sum((z.reshape(7, 2) @ z.reshape(7, 2).T - matrix) ** 2), rng.normal(size=14), method="BFGS"
    )
    z = best.x.reshape(7, 2)
    np.testing.assert_allclose(best.fun, np.sum(values[:-2] ** 2), rtol=1e-6)
    wanted = np.angle(z[:, 0] + 1j * z[:, 1])
    cosines = lambda phi: np.cos(np.subtract.outer(np.asarray(phi), np.asarray(phi)))
    np.testing.assert_allclose(cosines(phases), cosines(wanted), atol=1e-3)


def test_a_start_turns_with_what_holds_it():
    edges, coupling = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)], jnp.array([1.0, -0.6, 0.8, 0.5, -0.9])
    net = OscillatorNetwork.from_edges(edges, 4, coupling=coupling, inputs=[3], spectral_starts=True)
    plain, other = net.start(jnp.array([0.4])), net.start(jnp.array([1.5]))
    assert turned(other, plain + 1.1).max() < 1e-9


def test_layers_start_from_it_and_learn_their_frequencies():
    net = OscillatorNetwork.layered(
        (3, 8, 2), key=jax.random.key(1), frequency=0.1, readout="sine", spectral_starts=True
    )
    xs, ys = jnp.array([[0.2, 0.9, -0.4], [1.0, 0.1, 0.3]]), jnp.array([[0.5, -0.2], [0.1, 0.4]])
    estimate = EquilibriumPropagation(1e-3)(net, xs, ys)
    assert bool(jnp.all(estimate.equilibria[0].converged))

    @eqx.filter_jit
    def cost(net):
        settled = jax.vmap(lambda x, y: SquaredError()(net.read(net.relax(x).state, x), y))(xs, ys)
        return jnp.mean(settled)

    for place in ((0, 3), (1, 0)):
        moved = lambda step, place=place: eqx.tree_at(
            lambda n: n.frequency[place[0]], net, net.frequency[place[0]].at[place[1]].add(step)
        )
        slope = (cost(moved(1e-4)) - cost(moved(-1e-4))) / 2e-4
        np.testing.assert_allclose(estimate.gradient.frequency[place[0]][place[1]], slope, rtol=1e-4)


def test_single_phases_start_where_their_fields_point():
    net = OscillatorNetwork.from_edges(
        np.zeros((0, 2), int), 2, coupling=1.0, field=[1.0, 2.0], field_phase=[0.3, -2.0], spectral_starts=True
    )
    np.testing.assert_allclose(net.start(NONE), [0.3, -2.0], atol=1e-9)


def test_two_kinds_of_start_at_once_are_refused():
    with pytest.raises(ValueError, match="spectral_starts: wanted one kind of start, got random_starts too"):
        ring(1.0, 0.0, spectral_starts=True, random_starts=True)


def test_phases_are_finite_without_couplings_or_fields():
    alone = OscillatorNetwork.from_edges([(0, 1)], 2, coupling=0.0, spectral_starts=True)
    assert np.all(np.isfinite(spectral_phases(alone.whole(NONE))))
