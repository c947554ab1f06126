"""What a kind of system can be given: inputs, targets, strengths of nudges."""

from __future__ import annotations

import functools
from typing import NamedTuple

from substrates.classical.driven import DrivenNetwork
from substrates.classical.elastic import ElasticNetwork
from substrates.classical.ising import IsingModel
from substrates.classical.ising.layered import LayeredSpins
from substrates.classical.oscillator import OscillatorNetwork
from substrates.substrate import Substrate


class Ranges(NamedTuple):
    """What a system can be given.

    Attributes:
        inputs: the smallest and the largest.
        targets: the smallest and the largest that its outputs can be asked for.
        beta: the strength up to which nudges leave it on its branch.
        discrete: whether inputs and targets are 1 and -1 alone.
    """

    inputs: tuple[float, float] = (-1.0, 1.0)
    targets: tuple[float, float] = (-1.0, 1.0)
    beta: float = 0.1
    discrete: bool = False


@functools.singledispatch
def ranges(substrate: Substrate) -> Ranges:
    """What a system can be given; `ranges.register(MySystem)` a function of your own for one with other limits."""
    return Ranges()


@ranges.register
def _(substrate: ElasticNetwork) -> Ranges:
    return Ranges((-0.1, 0.1), (-0.1, 0.1), 0.01)


@ranges.register
def _(substrate: OscillatorNetwork) -> Ranges:
    return Ranges((-0.7, 0.7), (-0.7, 0.7))


@ranges.register
def _(substrate: DrivenNetwork) -> Ranges:
    return Ranges(targets=(0.0, 1.0), beta=0.01)


@ranges.register(IsingModel)
@ranges.register(LayeredSpins)
def _(substrate: IsingModel | LayeredSpins) -> Ranges:
    return Ranges(beta=1.0, discrete=True)
