"""What tests of rules share: small networks of three inputs and two outputs, a circuit, systems that do not settle."""

import dataclasses

import jax
import jax.numpy as jnp

from substrates import ResistorNetwork, SmoothHopfieldNetwork, Status, Substrate

KEY = jax.random.key(0)
X, Y = jnp.array([[0.9, 0.2, 0.4], [0.1, 0.8, 0.7]]), jnp.array([[0.3, 1.0], [0.0, 0.5]])
SIZES = (3, 5, 4, 2)
EDGES = [(0, 2), (0, 3), (1, 2), (1, 4), (2, 3), (3, 4)]
CIRCUIT = ResistorNetwork.from_edges(
    EDGES, n=5, inputs=[0, 1], outputs=[3, 4], conductance=jnp.array([1.0, 0.5, 0.8, 1.2, 0.4, 0.9])
)


def smooth(seed=0):
    return SmoothHopfieldNetwork.layered(SIZES, key=jax.random.key(seed), activation="tanh")


def unsettled(kind):
    """A class of systems like another, but that every relaxation says it ran out of steps."""

    class Unsettled(kind):
        def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
            found = Substrate.relax(self, x, nudge, start, key=key, solver=solver)
            return dataclasses.replace(found, status=Status.out_of_steps)

    return Unsettled
