"""Files written whole or not at all, and checkpoints: arrays of a tree and a little JSON in an npz file, no pickle."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")

_PREFIX = ".unfinished-"
_FORMAT = 1
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
    probe.unlink()


def remove_unfinished(folder: Path) -> None:
    """Removes what a killed writer left behind in a folder."""
    for leftover in folder.glob(_PREFIX + "*"):
        leftover.unlink(missing_ok=True)


def save_checkpoint(path: Path, tree: Any, facts: dict[str, Any]) -> None:
    """Writes the arrays of a tree and a dict of JSON facts to one file, atomically.

    Args:
        path: the file to write, an npz file that holds no pickled objects.
        tree: any pytree; leaves that are no arrays, of JAX or numpy, are not saved.
        facts: what to save beside the arrays.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in _named_arrays(tree).items()}
    header = {
        "format": _FORMAT,
        "facts": facts,
        "arrays": [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()],
    }
    members = {f"array{i}": _as_bytes(array) for i, array in enumerate(arrays.values())}
    members[_HEADER] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    write_atomically(path, lambda file: np.savez(file, **members))  # pyright: ignore[reportArgumentType]


def load_checkpoint(path: Path, like: T) -> tuple[T, dict[str, Any]]:
    """The tree and the facts of a checkpoint.

    Args:
        path: the file.
        like: a tree of the structure that was saved; its arrays are replaced.

    Raises CheckpointError if the file is truncated, damaged, no checkpoint, or if its arrays are not those of `like`
    by name, shape and dtype.
    """
    header, members = _read(path)
    wanted = {name: (leaf.dtype.name, tuple(leaf.shape)) for name, leaf in _named_arrays(like).items()}
    found = {name: (dtype, tuple(shape)) for name, dtype, shape in header["arrays"]}
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"{path}: belongs to another system or optimiser: {name} is {_describe(wanted.get(name))} here and "
                f"{_describe(found.get(name))} in the file; give what the run was started with, or another folder"
            )
    leaves, structure = jax.tree_util.tree_flatten(like)
    saved = iter(members)
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, np.ndarray):
            leaves[i] = next(saved).view(leaf.dtype).reshape(leaf.shape)
        elif eqx.is_array(leaf):
            like_saved = raw(leaf)
            array = jnp.asarray(next(saved).view(like_saved.dtype).reshape(like_saved.shape))
            leaves[i] = jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else array
    return jax.tree_util.tree_unflatten(structure, leaves), header["facts"]


def raw(leaf: Any) -> Any:
    """An array as it can be stored: the numbers of a random key."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _read(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            header = json.loads(archive[_HEADER].tobytes())
            if header["format"] != _FORMAT:
                raise CheckpointError(
                    f"{path}: wanted format {_FORMAT}, got {header['format']}; written by another version"
                )
            members = [archive[f"array{i}"] for i in range(len(header["arrays"]))]
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such checkpoint") from error
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise CheckpointError(
            f"{path}: truncated or damaged, or no checkpoint ({error}); remove this file to start the run again"
        ) from error
    return header, members


def _named_arrays(tree: Any) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): raw(leaf) for path, leaf in leaves if _is_array(leaf)}


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, np.ndarray)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_bytes(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(array.tobytes(), np.uint8)


def _describe(signature: tuple[str, tuple[int, ...]] | None) -> str:
    return "absent" if signature is None else f"{signature[0]}{list(signature[1])}"
