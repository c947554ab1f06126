"""Ising models whose ground states are found by an annealer outside: any sampler with dimod's interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from substrates.classical.ising.annealing import best
from substrates.classical.ising.spins import Spins, binary_quadratic_model
from substrates.classical.ising.sweeps import DRAW, sweep_words
from substrates.nudge import Nudge, Pin
from substrates.solvers.host import on_host
from substrates.solvers.solver import Equilibrium, Solver, judge, tolerance
from substrates.substrate import Substrate

Options = tuple[tuple[str, Any], ...]


class HostSampler(Solver):
    """The lowest of the samples that a dimod sampler returns, after a descent of single flips.

    The total energy at the input and nudge goes to the sampler as a binary quadratic model; a cost that is not
    quadratic in the output spins goes by its quadratic part, and the samples are judged by the whole of it. From a
    start that is spins it anneals in reverse, where the sampler takes `initial_states`; the start descends beside the
    samples and wins ties. The sampler is seeded from the key, where it takes a `seed`: then it is a pure function.

    Attributes:
        sampler: what has a method `sample(bqm, **options)`.
        options: of a free phase.
        reverse_options: of a phase that starts from spins.
    """

    sampler: Any = eqx.field(static=True)
    options: Options = eqx.field(static=True)
    reverse_options: Options = eqx.field(static=True)

    def __call__(
        self, substrate: AnnealedIsing, x: PyTree, nudge: Nudge | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        key = jax.random.key(0) if key is None else key
        model = substrate.model
        flat, unravel = ravel_pytree(start)
        found = model.terms(x, nudge)
        seed = jax.random.bits(key, (), jnp.uint32)
        count = int(dict(self.options)["num_reads"])
        shape = jax.ShapeDtypeStruct((count, flat.size), flat.dtype)
        ask = lambda *given: self.ask(count, *(np.asarray(part) for part in given)).astype(flat.dtype)
        given = (found.pairs, found.linear, found.quadratic, flat, seed)
        samples = on_host(ask, shape, *given, vmap_method="sequential")
        kernel = model.sweeps(x, nudge)
        spins = kernel.load(jax.vmap(unravel)(samples), sweep_words(key, DRAW))
        state, steps = best(model, x, nudge, kernel, spins, start, sweep_words(key, DRAW - 1))
        return judge(substrate, state, x, nudge, steps, tolerance(substrate, state, x, nudge))

    def ask(
        self,
        count: int,
        pairs: np.ndarray,
        linear: np.ndarray,
        quadratic: np.ndarray,
        start: np.ndarray,
        seed: np.ndarray,
    ) -> np.ndarray:
        """The samples of one problem, shape (count, free), the lowest first, the last repeated if some are missing."""
        known = getattr(self.sampler, "parameters", {})
        decided = bool(np.all(start))
        options = dict(self.reverse_options if decided else self.options)
        if decided and "initial_states" in known:
            options |= {"initial_states": (start.astype(np.int8), list(range(start.size)))}
            if "initial_states_generator" in known:
                options |= {"initial_states_generator": "tile"}
        if "seed" in known:
            options |= {"seed": int(seed) % 2**31}
        answer = self.sampler.sample(binary_quadratic_model(linear, pairs, quadratic), **options).aggregate()
        samples = np.asarray(answer.record.sample)[np.argsort(answer.record.energy, kind="stable")]
        samples = samples[:, np.argsort(np.asarray(list(answer.variables), int))]
        if not len(samples):
            raise RuntimeError("sampler: wanted at least one sample, got none")
        return samples[np.minimum(np.arange(count), len(samples) - 1)]


class AnnealedIsing(Substrate):
    """An Ising model whose ground states an annealer outside finds: an annealing machine, or any dimod sampler.

    The energy, the reading and what is measured are those of the model; `relax` asks the sampler, sorts what it
    returns by energy, and keeps the lowest sample after a descent of single flips. The nudged phase anneals in reverse
    from the free state where the sampler can. It works under jit, vmap and scan, one example after the other.

    Attributes:
        model: the spins, trainable.
        asking: the sampler and its options.

    Source: Laydevant, Markovic and Grollier 2024, arXiv 2305.18321.
    """

    contrast_points: ClassVar[int] = 0
    discrete: ClassVar[bool] = True
    holomorphic: ClassVar[bool] = False
    pins: ClassVar[bool] = False

    model: Spins
    asking: HostSampler

    def __init__(
        self,
        model: Spins,
        sampler: Any = None,
        *,
        options: Mapping[str, Any] | None = None,
        reverse_options: Mapping[str, Any] | None = None,
    ):
        """Puts a model on an annealer.

        Args:
            model: the spins.
            sampler: a dimod sampler; by default the simulated annealer of dwave-samplers.
            options: of its method `sample`; `num_reads` is 10 if they do not say.
            reverse_options: what differs for a nudged phase, which starts from spins.

        Raises:
            ValueError: for a model that is not made of spins, a sampler without `sample`, and options it does not know.
        """
        if not isinstance(model, Spins):
            raise ValueError(f"model: wanted an IsingModel, got {type(model).__name__}")
        if sampler is None:
            from dwave.samplers import SimulatedAnnealingSampler

            sampler = SimulatedAnnealingSampler()
        if not callable(getattr(sampler, "sample", None)):
            raise ValueError(f"sampler: wanted a dimod sampler, with a method sample, got {type(sampler).__name__}")
        known = getattr(sampler, "parameters", None)
        for name, given in (("options", options), ("reverse_options", reverse_options)):
            wrong = [] if known is None else sorted(set(given or {}) - set(known))
            ours = sorted({"seed", "initial_states", "initial_states_generator"} & set(given or {}))
            if wrong or ours:
                why = f"which {type(sampler).__name__} does not know" if wrong else "which relax gives itself"
                raise ValueError(f"{name}: wanted options of the sampler's method sample, got {wrong or ours}, {why}")
        reads = {"num_reads": 10, **(options or {})}
        if not isinstance(reads["num_reads"], int) or reads["num_reads"] < 1:
            raise ValueError(f"options: wanted a whole number num_reads, at least 1, got {reads['num_reads']}")
        self.model = model
        self.asking = HostSampler(sampler, _items(reads), _items({**reads, **(reverse_options or {})}))

    @property
    def solver(self) -> Solver:  # type: ignore[override]
        return self.asking

    @property
    def input_size(self) -> int | None:
        return self.model.input_size

    def energy(self, state: PyTree, x: Float[Array, "inputs"]) -> Float[Array, ""]:
        return self.model.energy(state, x)

    def initial_state(self, x: Float[Array, "inputs"]) -> PyTree:
        return self.model.initial_state(x)

    def read(self, state: PyTree, x: Float[Array, "inputs"]) -> Float[Array, "outputs"]:
        return self.model.read(state, x)

    def residual(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> Float[Array, ""]:
        return self.model.residual(state, x, nudge)

    def force_scale(self, state: PyTree, x: PyTree) -> PyTree:
        return self.model.force_scale(state, x)

    def constrained(self) -> AnnealedIsing:
        return eqx.tree_at(lambda system: system.model, self, self.model.constrained())

    def draw(self, state: PyTree = None, x: Any = None, ax: Any = None) -> Any:
        """Draws the model in a state; see `IsingModel.draw`."""
        if state is None and x is not None:
            state = self.relax(jnp.asarray(x)).state
        return self.model.draw(state, x, ax)


def _items(options: Mapping[str, Any]) -> Options:
    freeze = lambda value: tuple(value) if isinstance(value, (list, np.ndarray)) else value
    return tuple(sorted((name, freeze(value)) for name, value in options.items()))
