"""Files written whole or not at all, and checkpoints: arrays of a tree and a little JSON in an npz file, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")

_PREFIX = ".unfinished-"
_FORMAT = 2
_HEADER = "header"


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to something else."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file through a temporary one beside it, flushed to the disk and then renamed: a reader finds the old
    file or the new one, never a part of one.

    Args:
        path: the file, replaced if it exists.
        write: called with the open temporary file.

    Raises OSError if the folder cannot be written; the old file is then untouched.
    """
    temporary = path.with_name(f"{_PREFIX}{os.getpid()}-{path.name}")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file atomically."""
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def require_writable(folder: Path) -> None:
    """Makes a folder if need be. Raises OSError if no file can be made in it."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f"{_PREFIX}{os.getpid()}-probe"
    probe.touch()
    probe.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Removes what a killed writer left behind in a folder."""
    for leftover in folder.glob(_PREFIX + "*"):
        leftover.unlink(missing_ok=True)


def save_checkpoint(path: Path, tree: Any, facts: dict[str, Any]) -> None:
    """Writes the arrays of a tree and a dict of JSON facts to one file, atomically. What is equal is written as equal
    bytes.

    Args:
        path: the file to write, an npz file that holds no pickled objects.
        tree: any pytree; leaves that are no arrays, of JAX or numpy, are not saved.
        facts: what to save beside the arrays.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in named_arrays(tree).items()}
    header = {
        "format": _FORMAT,
        "facts": facts,
        "arrays": [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()],
    }
    members = {f"array{i}": _as_bytes(array) for i, array in enumerate(arrays.values())}
    members[_HEADER] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    write_atomically(path, lambda file: np.savez(file, **members))  # pyright: ignore[reportArgumentType]


def read_checkpoint(path: Path, remedy: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a checkpoint by the names that they have in its tree, and the facts; random keys are numbers.

    Args:
        path: the file.
        remedy: what brings a lost or damaged file back; without it a run starts again.

    Raises CheckpointError if the file is absent, truncated, damaged, no checkpoint, or of another format.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            header = json.loads(archive[_HEADER].tobytes())
            if header["format"] != _FORMAT:
                raise CheckpointError(
                    f"{path}: wanted format {_FORMAT}, got {header['format']}; another version of groundstate wrote "
                    "it: read it with that version"
                )
            arrays = {
                name: archive[f"array{i}"].view(np.dtype(dtype)).reshape(shape)
                for i, (name, dtype, shape) in enumerate(header["arrays"])
            }
            return arrays, dict(header["facts"])
    except (CheckpointError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such checkpoint{'; ' * bool(remedy)}{remedy}") from error
    except PermissionError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); ask for the right to read it") from error
    except Exception as error:  # damaged bytes can lead a reader of zip files anywhere
        raise CheckpointError(
            f"{path}: truncated or damaged, or no checkpoint; {remedy or 'remove this file to start the run again'}"
        ) from error


def load_checkpoint(path: Path, like: T) -> tuple[T, dict[str, Any]]:
    """The tree and the facts of a checkpoint.

    Args:
        path: the file.
        like: a tree of the structure that was saved; its arrays are replaced.

    Raises CheckpointError if the file is truncated, damaged, no checkpoint, or if its arrays are not those of `like`
    by name, shape and dtype.
    """
    arrays, facts = read_checkpoint(path)
    wanted = {name: _signature(leaf) for name, leaf in named_arrays(like).items()}
    found = {name: _signature(array) for name, array in arrays.items()}
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"{path}: belongs to another system or optimiser: {name} is {_describe(wanted.get(name))} here and "
                f"{_describe(found.get(name))} in the file; give what the run was started with, or another folder"
            )
    return replace_arrays(like, arrays), facts


def replace_arrays(tree: T, arrays: Mapping[str, np.ndarray]) -> T:
    """A tree with other numbers in its arrays, of JAX or numpy, in the dtype that they have there.

    Args:
        tree: any pytree.
        arrays: numbers of the shapes that are there, by `named_arrays`; where there are none the tree's own remain.
    """

    def replaced(path: tuple, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path)
        if not _is_array(leaf) or name not in arrays:
            return leaf
        numbers = arrays[name]
        if _is_key(leaf):
            return jax.random.wrap_key_data(jnp.asarray(numbers), impl=jax.random.key_impl(leaf))
        if isinstance(leaf, np.ndarray):
            return numbers.astype(leaf.dtype)
        return jnp.asarray(numbers, leaf.dtype)

    return jax.tree_util.tree_map_with_path(replaced, tree)


def named_arrays(tree: Any) -> dict[str, Any]:
    """The arrays of a tree, of JAX or numpy, by their paths in it; random keys as numbers."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): raw(leaf) for path, leaf in leaves if _is_array(leaf)}


def raw(leaf: Any) -> Any:
    """An array as it can be stored: the numbers of a random key."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def digest(tree: Any) -> str:
    """A checksum of all arrays of a tree."""
    checksum = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(tree):
        if _is_array(leaf):
            array = np.ascontiguousarray(raw(leaf))
            checksum.update(f"{array.dtype}{array.shape}".encode())
            checksum.update(array.data if array.size else b"")
    return checksum.hexdigest()


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, np.ndarray)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_bytes(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(array.tobytes(), np.uint8)


def _signature(array: Any) -> tuple[str, tuple[int, ...]]:
    return array.dtype.name, tuple(array.shape)


def _describe(signature: tuple[str, tuple[int, ...]] | None) -> str:
    return "absent" if signature is None else f"{signature[0]}{list(signature[1])}"
