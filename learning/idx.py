"""The idx files in which MNIST and its relatives are published: parsed, checked, and fetched when absent."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from learning.checkpoint import write_atomically
from substrates.session import cache_folder

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

_LARGEST = 2**30
_UNSIGNED_BYTE = 0x08


class DataError(ValueError):
    """A data set is unknown, absent, damaged or asked for in a way that makes no sense."""


class ImageSet(NamedTuple):
    """Where a set of images comes from.

    `openml_name` is its name there (version 1), where the training images come first and the test images last, both
    in their published order; `digests` are the sha256 of the four files of `FILES`, decompressed.
    """

    openml_name: str
    digests: tuple[str, str, str, str]


IMAGE_SETS = {
    "mnist": ImageSet(
        "mnist_784",
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion-mnist": ImageSet(
        "Fashion-MNIST",
        (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
}


def read_idx(path: Path) -> np.ndarray:
    """The array of unsigned bytes in an idx file, gzipped if its name ends with .gz.

    The file is two zero bytes, a type byte, the number of axes, their big-endian lengths, and the numbers.
    Raises DataError, naming the file, for anything else.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0":
                raise DataError(f"{path}: wanted an idx file, which starts with two zero bytes, got {magic.hex()!r}")
            if magic[2] != _UNSIGNED_BYTE or not 1 <= magic[3] <= 3:
                raise DataError(f"{path}: wanted 1 to 3 axes of unsigned bytes (type 08), got magic {magic.hex()}")
            lengths = file.read(4 * magic[3])
            if len(lengths) < 4 * magic[3]:
                raise DataError(f"{path}: ends inside its header; fetch it again")
            shape = struct.unpack(f">{magic[3]}I", lengths)
            size = int(np.prod([int(length) for length in shape], dtype=object))
            if size > _LARGEST:
                raise DataError(f"{path}: its header announces {size} bytes, more than the {_LARGEST} accepted")
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch it again") from error
    if len(content) != size:
        came = "more" if len(content) > size else f"only {len(content)}"
        raise DataError(f"{path}: its header announces {size} bytes of data, but {came} came; fetch it again")
    return np.frombuffer(content, np.uint8).reshape(shape)


def encode_idx(array: np.ndarray) -> bytes:
    """The idx file, not compressed, of an array of unsigned bytes with 1 to 3 axes; raises DataError for any other."""
    if array.dtype != np.uint8 or not 1 <= array.ndim <= 3:
        raise DataError(f"array: wanted 1 to 3 axes of unsigned bytes, got {array.dtype} of shape {array.shape}")
    header = bytes([0, 0, _UNSIGNED_BYTE, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + np.ascontiguousarray(array, np.uint8).tobytes()


def load_image_set(name: str) -> list[np.ndarray]:
    """Training images and labels, test images and labels, as unsigned bytes.

    They are looked for in `$GROUNDSTATE_DATA/<name>`, then in the user's cache, and else downloaded from OpenML into
    the cache; wherever they come from, their checksums are verified. Raises DataError.
    """
    for shelf in shelves():
        paths = [_present(shelf / name, file) for file in FILES]
        if all(paths):
            arrays = [read_idx(path) for path in paths if path]
            for path, array, digest in zip(paths, arrays, IMAGE_SETS[name].digests, strict=True):
                _verify(str(path), array, digest)
            return arrays
    return _download(name)


def shelves() -> list[Path]:
    """Where folders of data sets are looked for, in turn: `$GROUNDSTATE_DATA` if it is set, and the user's cache."""
    named = os.environ.get("GROUNDSTATE_DATA")
    return [Path(named), cache_folder()] if named else [cache_folder()]


def _present(folder: Path, file: str) -> Path | None:
    return next((path for path in (folder / f"{file}.gz", folder / file) if path.is_file()), None)


def _verify(origin: str, array: np.ndarray, digest: str) -> None:
    found = hashlib.sha256(encode_idx(array)).hexdigest()
    if found != digest:
        raise DataError(
            f"{origin}: its checksum is not that of the published data (sha256 of the decompressed file: wanted "
            f"{digest}, got {found}); remove it and fetch it again"
        )


def _download(name: str) -> list[np.ndarray]:
    from sklearn.datasets import fetch_openml

    source = IMAGE_SETS[name]
    try:
        bunch: Any = fetch_openml(source.openml_name, version=1, as_frame=False, parser="liac-arff", cache=False)
    except (OSError, ValueError) as error:
        places = " or ".join(str(shelf / name) for shelf in shelves())
        raise DataError(
            f"{name}: not on this machine, and OpenML cannot be reached ({error}). Place the four files "
            f"{', '.join(f'{file}.gz' for file in FILES)} in {places}, or set GROUNDSTATE_DATA to the folder that "
            f"holds {name}/"
        ) from error
    images = np.asarray(bunch.data).astype(np.uint8).reshape(-1, 28, 28)
    labels = np.asarray(bunch.target).astype(np.uint8)
    arrays = [images[:60000], labels[:60000], images[60000:], labels[60000:]]
    for file, array, digest in zip(FILES, arrays, source.digests, strict=True):
        _verify(f"OpenML's {source.openml_name}, {file}", array, digest)
    _store(cache_folder() / name, arrays)
    return arrays


def _store(folder: Path, arrays: list[np.ndarray]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, array in zip(FILES, arrays, strict=True):
            packed = gzip.compress(encode_idx(array), mtime=0)
            write_atomically(folder / f"{file}.gz", lambda out, packed=packed: out.write(packed))
    except OSError as error:
        raise DataError(f"{folder}: the downloaded data cannot be kept there ({error}); make it writable") from error
