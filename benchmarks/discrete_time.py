"""The convolutional network that settles in discrete time, on MNIST: 5x5 kernels to 32 and 64 maps, 10 outputs.

    python benchmarks/discrete_time.py --seconds                # what a step and an epoch cost (a minute)
    python benchmarks/discrete_time.py --choose                 # settings, on 10,000 validation images
    python benchmarks/discrete_time.py --epochs 10 --seed 0     # test error, once, at the end

Every unit of `HopfieldNetwork.convolutional` is updated at once, s <- dPhi/ds - beta dC/ds (`DiscreteTime`, hard
units), for a number of steps that is fixed beforehand, as published: FREE without a nudge and NUDGED with one. All
60,000 training images, the official 10,000 test images evaluated once, at the end; the seed draws the couplings and the
order. --choose trains on TRAINED of 50,000 images and prints the error on the other 10,000. Published: 1.02 % by
equilibrium propagation and 0.88 % by back-propagation through time, with max pooling (Ernoult, Grollier, Querlioz,
Bengio and Scellier 2019, arXiv 1905.13633; recalled, not checked against the paper). Here windows of 2x2 are averaged:
pooling and convolution are then one correlation with a third of the products. MNIST is read from
$GROUNDSTATE_DATA/mnist or the user's cache, or downloaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp

from learning import EquilibriumPropagation, fit, load_data
from learning.catalogue import optimiser
from substrates import DiscreteTime, Equilibrium, HopfieldNetwork, Nudge
from substrates.substrate import Solver, Substrate
from substrates.wrapper import Wrapper

TRAINED = 10_000


class Steps(Solver):
    """`DiscreteTime` for one number of steps where nothing nudges the outputs, and another where something does."""

    free: int = eqx.field(static=True)
    nudged: int = eqx.field(static=True)

    def __call__(self, substrate, x, nudge, start, key) -> Equilibrium:
        count = self.free
        if isinstance(nudge, Nudge):
            count = jnp.where(nudge.beta == 0, self.free, self.nudged)
        return DiscreteTime().limited(count)(substrate, x, nudge, start, key)


class Stepped(Wrapper):
    """A substrate that settles by `Steps`."""

    steps: Steps

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None) -> Equilibrium:
        return self.inner.relax(x, nudge, start, key=key, solver=self.steps if solver is None else solver)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is chosen on validation images."""

    free: int = 10
    nudged: int = 5
    beta: float = 0.4
    variant: str = "centered"
    rates: tuple[float, float, float] = (0.002, 0.002, 0.001)
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    batch: int = 20
    decay: float = 0.9
    method: str = "adam"


CHOSEN = Settings()


def network(settings: Settings, seed: int) -> Substrate:
    net = HopfieldNetwork.convolutional(
        (28, 28, 1),
        (32, 64),
        10,
        key=jax.random.key(seed),
        kernel=5,
        padding=0,
        gain=settings.gain,
        dtype=jnp.float32,
    )
    return Stepped(net, Steps(settings.free, settings.nudged))


def trained(settings: Settings, examples, epochs: int, seed: int, **parts):
    net = network(settings, seed)
    rates = {f"inner.{name}[{k}]": rate for k, rate in enumerate(settings.rates) for name in ("coupling", "bias")}
    steps = -(-len(examples[1]) // settings.batch)
    return fit(
        net,
        EquilibriumPropagation(settings.beta, settings.variant),
        examples,
        optimiser=optimiser(settings.method, rates, settings.decay, steps, net),
        epochs=epochs,
        batch_size=settings.batch,
        key=jax.random.key(seed + 100),
        **parts,
    )
