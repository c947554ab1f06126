"""Devices that share each batch, and large parameters, in one process or in several, on one machine or on many."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from learning.checkpoint import raw
from learning.rule import Estimator, Mover
from substrates.substrate import COLUMNS, EXAMPLES, LARGE, column_spec, split_parameters

T = TypeVar("T")


_DIGEST, _SHOWN = 16, 120
"""Bytes by which facts are compared, and by which they are shown."""


class ProcessError(RuntimeError):
    """Processes that train together do not do the same."""


class ColumnsError(ValueError):
    """Devices cannot share the columns of what a system trains; `reason` says why, whoever asked for it."""

    def __init__(self, reason: str, devices: int):
        super().__init__(
            f"mesh: {reason}; give a mesh of one axis, jax.make_mesh(({devices},), ('examples',)), by which each has "
            "all parameters"
        )
        self.reason = reason


class Devices:
    """What shares the examples of each batch, and the columns of large parameters: all devices of a mesh, or without
    one whatever JAX computes on.

    Attributes:
        count: how many equal parts of a batch the devices have.
        columns: how many devices share the columns of large parameters; 1 where each has all of them.
        several: whether they belong to several processes, all of which then make the same calls.
        leads: whether this is the process that writes and speaks for all.
        mesh: these devices, or None.
    """

    def __init__(self, mesh: Mesh | None = None):
        """Takes a mesh of one axis, whatever its name and kind, or of two, the second for columns.

        Raises TypeError for what is no mesh, ValueError for one of more axes, and for one that has devices of some
        processes only.
        """
        self.count, self.columns, self.several, self.leads, self.mesh = 1, 1, False, True, None
        if mesh is None:
            return
        if not isinstance(mesh, Mesh):
            raise TypeError(f"mesh: wanted a jax.sharding.Mesh, got {mesh!r}; give jax.make_mesh((4,), ('examples',))")
        if mesh.devices.ndim not in (1, 2):
            raise ValueError(
                "mesh: wanted one axis, along which devices share the examples, or a second, along which they share "
                f"the columns of large parameters, got {dict(mesh.shape)}; give jax.make_mesh(({mesh.size},), "
                f"('examples',)) or jax.make_mesh((1, {mesh.size}), ('examples', 'columns'))"
            )
        owners = {device.process_index for device in mesh.devices.flat}
        if owners not in ({jax.process_index()}, set(range(jax.process_count()))):
            raise ValueError(
                f"mesh: wanted devices of this process or of all {jax.process_count()}, got those of processes "
                f"{', '.join(map(str, sorted(owners)))}; give a mesh of jax.local_devices() or of jax.devices()"
            )
        virtual = [device for device in mesh.local_devices if device.platform == "cpu"]
        if len(virtual) > 1 and jax.__version_info__ < (0, 12):
            warnings.warn(
                f"mesh: several CPU devices of one process may wait for each other for ever in jax {jax.__version__}; "
                "take a process for each, or Python 3.12 or later and a newer jax",
                RuntimeWarning,
                stacklevel=3,
            )
        self.count, self.columns = mesh.devices.shape[0], mesh.size // mesh.devices.shape[0]
        axes = (EXAMPLES,) if self.columns == 1 else (EXAMPLES, COLUMNS)
        shape = (self.count, self.columns)[: len(axes)]
        self.mesh = Mesh(mesh.devices.reshape(shape), axes, axis_types=(AxisType.Auto,) * len(axes))
        self.several = len(owners) > 1
        self.leads = not self.several or jax.process_index() == 0

    def check_batch(self, size: int) -> None:
        """Raises ValueError for a batch of which devices would have unequal parts."""
        if size % self.count:
            below = size - size % self.count
            fitting = " or ".join(str(n) for n in (below, below + self.count) if n)
            devices = "devices" if self.columns == 1 else f"groups of {self.columns} devices"
            raise ValueError(
                f"batch_size: wanted a multiple of the {self.count} {devices}, each of which has as many examples, got "
                f"{size}; give {fitting}, or a number of {devices} that divides it"
            )

    def check_columns(self, system: Any, rule: Estimator | Mover) -> None:
        """Raises ColumnsError where devices that are to share columns find none to share in what a rule trains."""
        if self.columns == 1:
            return
        if isinstance(rule, Mover):
            raise self.refusal(f"{type(rule).__name__} moves the parameters itself and takes them whole")
        specs = [column_spec(leaf, self.columns) for leaf in jax.tree.leaves(split_parameters(system)[0])]
        if all(spec == PartitionSpec() for spec in specs):
            raise self.refusal(
                f"{type(system).__name__} trains no matrix of {LARGE:,} numbers or more whose columns {self.columns} "
                "devices can share evenly"
            )

    def refusal(self, reason: str) -> ColumnsError:
        """The error that says why these devices cannot share columns."""
        return ColumnsError(reason, self.count * self.columns)

    def rounded(self, size: int, most: int | None = None) -> int:
        """The next larger batch of which all devices have equal parts; the largest such that has at most so many
        examples, if there is one.
        """
        up = -(-size // self.count) * self.count
        return up if most is None or up <= most else most - most % self.count or most

    def sharing(self) -> AbstractContextManager[Any]:
        """In here, what is compiled shares examples: relaxations as `by_devices` has it, the rest by the compiler."""
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def place(self, tree: T) -> T:
        """The tree with its arrays whole on every device; each process gives the same."""
        return self._placed(tree, lambda numbers: PartitionSpec())

    def divide(self, tree: T) -> T:
        """The tree with its large matrices by columns (`column_spec`), and the rest whole, on every device."""
        return self._placed(tree, lambda numbers: column_spec(numbers, self.columns))

    def _placed(self, tree: T, spec: Callable[[np.ndarray], PartitionSpec]) -> T:
        if self.mesh is None:
            return tree
        mesh = self.mesh
        placed = lambda numbers: jax.make_array_from_callback(
            numbers.shape, NamedSharding(mesh, spec(numbers)), lambda part: numbers[part]
        )
        return jax.tree.map(lambda leaf: _remade(leaf, placed) if eqx.is_array(leaf) else leaf, tree)

    def gathered(self, tree: T) -> T:
        """The tree with what processes share by columns whole, in numpy, one array after the other; all of them ask
        for it together.
        """
        return jax.tree.map(_gathered, tree)

    def own(self, tree: T) -> T:
        """The tree with arrays of all devices, `gathered`, as arrays like any other, of this process alone."""
        if self.mesh is None:
            return tree
        held = lambda leaf: eqx.is_array(leaf) and isinstance(leaf.sharding, NamedSharding)
        return jax.tree.map(lambda leaf: _remade(_gathered(leaf), jnp.asarray) if held(leaf) else leaf, tree)

    def any(self, here: bool) -> bool:
        """Whether something is so in at least one process."""
        return bool(np.any(self._of_all(here)))

    def least(self, here: int) -> int:
        """The smallest of what the processes have."""
        return int(np.min(self._of_all(here)))

    def check_same(self, **facts: Any) -> None:
        """Raises ProcessError in every process if a fact is not the same in all of them; it names the fact."""
        for name, fact in facts.items() if self.several else ():
            text = json.dumps(fact).encode()
            signed = hashlib.blake2b(text, digest_size=_DIGEST).digest() + text[:_SHOWN].ljust(_SHOWN)
            known = [row.tobytes() for row in self._of_all(np.frombuffer(signed, np.uint8))]
            other = next((k for k, row in enumerate(known) if row != known[0]), None)
            if other is not None:
                first, strange = (row[_DIGEST:].decode(errors="replace").strip() for row in (known[0], known[other]))
                raise ProcessError(
                    f"{name}: wanted the same in all {len(known)} processes, got {first} in process 0 and {strange} in "
                    f"process {other}; start all of them alike, where they see the same files"
                )

    def together(self, action: Callable[[], T]) -> T:
        """action() in every process. Where it fails in one it fails in all, so that none waits for another."""
        found, problem = None, None
        try:
            found = action()
        except Exception as error:
            problem = error
        failed = np.flatnonzero(self._of_all(problem is not None))
        if problem is not None:
            raise problem
        if len(failed):
            raise ProcessError(f"process {failed[0]} has stopped; what it said tells why, and this one stops with it")
        return found  # pyright: ignore[reportReturnType]

    def _of_all(self, here: Any) -> np.ndarray:
        """What each process has, one after the other."""
        alone = np.asarray(here)[None]
        return np.asarray(multihost_utils.process_allgather(alone[0])) if self.several else alone


def _gathered(leaf: Any) -> Any:
    """An array that other processes have parts of as one of numpy; all else as it is."""
    parted = isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated)
    return multihost_utils.process_allgather(leaf, tiled=True) if parted else leaf


def _remade(leaf: Any, make: Callable[[np.ndarray], jax.Array]) -> jax.Array:
    """An array, or random keys, made again of its numbers."""
    made = make(np.asarray(raw(leaf)))
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(made, impl=jax.random.key_impl(leaf)) if is_key else made
