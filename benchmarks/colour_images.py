"""Colour images: CIFAR-10 or a part of it, how they vary from epoch to epoch, and a stand-in where there are none."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from learning import load_data
from learning.cifar import ARRAYS
from learning.idx import DataError

SIDE, BORDER = 32, 4


class Images(NamedTuple):
    """Pairs of pixels from 0 to 1, shape (n, 32, 32, 3), and labels; and a line that says what they are."""

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    origin: str


def published(folder: Path | None) -> Images:
    """CIFAR-10, or the part of it that `pack` left in a folder. Raises DataError where it is not at hand."""
    if folder is None:
        data = load_data("cifar-10", seed=0, validation=5_000)
        assert data.validation is not None
        parts = [(x.reshape(-1, SIDE, SIDE, 3), y) for x, y in (data.train, data.validation, data.test)]
    else:
        try:
            x, y, test_x, test_y = (_read(folder / name) for name in ARRAYS)
        except OSError as error:
            raise DataError(f"--images: {error}; make the folder by --pack") from error
        held = min(5_000, max(1, len(y) // 10))
        scaled = lambda pixels: pixels.astype(np.float32) / np.float32(255)
        parts = [(scaled(x[:-held]), y[:-held]), (scaled(x[-held:]), y[-held:]), (scaled(test_x), test_y)]
    sizes = ", ".join(f"{len(y):,} {name}" for (_, y), name in zip(parts, ("train", "validation", "test"), strict=True))
    train, validation, test = ((x, y.astype(np.int32)) for x, y in parts)
    return Images(train, validation, test, f"CIFAR-10: {sizes}")


def drawn(count: int) -> Images:
    """Images of noise in which every class has a colour: what a run without data learns."""
    rng = np.random.default_rng(0)
    colours = rng.uniform(size=(10, 3))

    def part(size: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(size, dtype=np.int32) % 10
        noise = rng.uniform(size=(size, SIDE, SIDE, 3))
        return (0.7 * colours[labels][:, None, None] + 0.3 * noise).astype(np.float32), labels

    origin = f"drawn: {count:,} images of noise in ten colours, no data set"
    return Images(part(count), part(count // 4), part(count // 4), origin)


def pack(folder: Path, count: int) -> None:
    """The first images for training and all test images that are at hand, for a machine that can fetch nothing."""
    data = load_data("cifar-10", validation=0)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = [np.rint(255 * data.train[0][:count]), data.train[1][:count], np.rint(255 * data.test[0]), data.test[1]]
    for name, array in zip(ARRAYS, arrays, strict=True):
        shape = (-1, SIDE, SIDE, 3) if array.ndim == 2 else (-1,)
        with (lzma.open if name.endswith(".xz") else open)(folder / name, "wb") as file:
            np.save(file, array.astype(np.uint8).reshape(shape))


def _read(path: Path) -> np.ndarray:
    with (lzma.open if path.suffix == ".xz" else open)(path, "rb") as file:
        return np.load(file, allow_pickle=False)


def standardised(images: Images) -> Images:
    """The same with mean 0 and deviation 1 of every colour over the training images."""
    mean, deviation = images.train[0].mean((0, 1, 2)), images.train[0].std((0, 1, 2))
    scaled = lambda pair: (((pair[0] - mean) / deviation).astype(np.float32), pair[1])
    return Images(scaled(images.train), scaled(images.validation), scaled(images.test), images.origin)


@jax.jit
def varied(images: jax.Array, key: jax.Array) -> jax.Array:
    """Each image (n, 32, 32, 3) turned over left to right or not, and cut out of itself in a border of zeros."""
    turn, shift = jax.random.split(key)
    bordered = jnp.pad(images, ((0, 0), (BORDER, BORDER), (BORDER, BORDER), (0, 0)))
    corners = jax.random.randint(shift, (len(images), 2), 0, 2 * BORDER + 1)
    cut = lambda image, corner: jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:])
    moved = jax.vmap(cut)(bordered, corners)
    turned = jax.random.bernoulli(turn, 0.5, (len(images), 1, 1, 1))
    return jnp.where(turned, moved[:, :, ::-1], moved)
