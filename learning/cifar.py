"""CIFAR-10, colour images of 32 x 32: the published archive, or its arrays in NumPy's files, checked before they are
read.
"""

from __future__ import annotations

import hashlib
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from learning.idx import DataError, shelves

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""What the labels 0 to 9 mean."""

ARCHIVE = "cifar-10-binary.tar.gz"
"""The published file, which is not to be unpacked."""

ARRAYS = ("train_images.npy.xz", "train_labels.npy", "test_images_first1000.npy.xz", "test_labels_first1000.npy")
"""The same 50,000 training images in the published order and the first 1,000 of the 10,000 test images."""

DIGESTS = {
    ARCHIVE: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ARRAYS[0]: "630bcc96f3153c2d2501d9e8ef15294751ad3b2a43bd1e8de452b2d803bdbe40",
    ARRAYS[1]: "fad921ba16b0efeebb54393d1351545d1fe1a357f6f81324c821e3e11b956c70",
    ARRAYS[2]: "16ed7fe0cdc50baf21bee860122997629bcbd15f7695104f3159c03880e4c0e2",
    ARRAYS[3]: "6988dd2f6284b6f7aedd9bd0d908439f0a7edff3776195add3af3aa053ea8ed3",
}
"""The sha256 of each file."""

_FOLDER = "cifar10"
_INSIDE = "cifar-10-batches-bin"
_SHAPE = (3, 32, 32)


def load_colour_images() -> list[np.ndarray]:
    """Training images (50000, 32, 32, 3) and labels (50000,), test images and labels, as unsigned bytes.

    The archive, or else the four arrays, are looked for in `$GROUNDSTATE_DATA/cifar10`, then in the user's cache. The
    test part of the archive has 10,000 images, that of the arrays their first 1,000. Raises DataError where neither is
    there, or a file is damaged.
    """
    folders = [shelf / _FOLDER for shelf in shelves()]
    for folder in folders:
        if (folder / ARCHIVE).is_file():
            return _archive(folder / ARCHIVE)
        if all((folder / file).is_file() for file in ARRAYS):
            return [_array(folder / file) for file in ARRAYS]
    raise DataError(
        f"cifar-10: not on this machine. Place {ARCHIVE} (170 MB, from https://www.cs.toronto.edu/~kriz/cifar.html), "
        f"as it is, in {' or '.join(map(str, folders))}, or set GROUNDSTATE_DATA to the folder that holds {_FOLDER}/"
    )


def _archive(path: Path) -> list[np.ndarray]:
    _verify(path)
    with _readable(path), tarfile.open(path, "r:gz") as archive:
        parts = [[f"data_batch_{number}.bin" for number in range(1, 6)], ["test_batch.bin"]]
        contents = [b"".join(_member(archive, file) for file in files) for files in parts]
    return [array for content in contents for array in _records(content)]


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(f"{_INSIDE}/{name}")
    assert file is not None  # a KeyError before that where there is none
    return file.read()


def _records(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of records of one byte, the label, and the planes of red, green and blue, row by row."""
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + int(np.prod(_SHAPE)))
    return np.ascontiguousarray(records[:, 1:].reshape(-1, *_SHAPE).transpose(0, 2, 3, 1)), records[:, 0]


def _array(path: Path) -> np.ndarray:
    _verify(path)
    opener = lzma.open if path.suffix == ".xz" else open
    with _readable(path), opener(path, "rb") as file:
        return np.load(file, allow_pickle=False)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raises DataError, naming the file, for whatever keeps it from being read."""
    try:
        yield
    except (OSError, EOFError, KeyError, ValueError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch it again") from error


def _verify(path: Path) -> None:
    with _readable(path), open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != DIGESTS[path.name]:
        raise DataError(
            f"{path}: its checksum is not that of the published data (sha256: wanted {DIGESTS[path.name]}, got "
            f"{found}); remove it and fetch it again"
        )
