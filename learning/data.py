"""Data sets, scaled and split for training, validation and test."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from learning import cifar
from learning.idx import DataError, load_image_set

Examples = tuple[Float[np.ndarray, "n inputs"], Int[np.ndarray, "n"]]

_TEST_FRACTION = 0.2
_TEST_SEED = 0
_TABLES = ("iris", "wine", "breast-cancer")
_FASHION = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"
)  # fmt: skip

_IMAGES = {
    "mnist": (partial(load_image_set, "mnist"), tuple(map(str, range(10)))),
    "fashion-mnist": (partial(load_image_set, "fashion-mnist"), _FASHION),
    "cifar-10": (cifar.load_colour_images, cifar.CLASSES),
}
"""What loads published images, training and test parts, and what their labels mean."""

DATA_SETS = {
    "digits": "1,797 images of 8 x 8 of handwritten digits (scikit-learn)",
    "iris": "150 flowers of 3 species, 4 lengths each (scikit-learn)",
    "wine": "178 wines of 3 cultivars, 13 chemical features each (scikit-learn)",
    "breast-cancer": "569 tumours of 2 kinds, 30 features each (scikit-learn)",
    "mnist": "70,000 images of 28 x 28 of handwritten digits (idx files or OpenML)",
    "fashion-mnist": "70,000 images of 28 x 28 of clothes (idx files or OpenML)",
    "cifar-10": "60,000 colour images of 32 x 32 of 10 kinds of animals and vehicles (its binary archive)",
}
"""The names that `load_data` knows, with a line about each."""


@dataclass(frozen=True)
class Data:
    """A data set in parts; each part is a pair of inputs (n, n_inputs), float32, and integer labels (n,).

    Attributes:
        name: what `load_data` was asked for.
        train: what to learn from.
        validation: what to choose by, or None.
        test: what to judge by at the very end, and never to choose by.
        classes: what each label means.
        scaling: how the inputs were scaled, a sentence.
        seed, validation_part: what `load_data` was given.
    """

    name: str
    train: Examples
    validation: Examples | None
    test: Examples
    classes: tuple[str, ...]
    scaling: str
    seed: int = 0
    validation_part: float | int = 0.1

    @property
    def n_inputs(self) -> int:
        """The number of features of an example."""
        return self.train[0].shape[1]

    @property
    def n_outputs(self) -> int:
        """The number of classes."""
        return len(self.classes)

    def __repr__(self) -> str:
        sizes = [f"{len(self.train[1]):,} for training"]
        if self.validation is not None:
            sizes.append(f"{len(self.validation[1]):,} for validation")
        sizes.append(f"{len(self.test[1]):,} for the test")
        return (
            f"{self.name}: {self.n_inputs} inputs, {self.n_outputs} classes; examples: {', '.join(sizes)}. "
            f"{self.scaling}"
        )


class Split(NamedTuple):
    """Examples in parts, as `fit` was given them: pairs (X, Y), None where there were none."""

    train: Any
    validation: Any = None
    test: Any = None


def number_names(parts: Split) -> tuple[Split, tuple[str, ...] | None]:
    """Labels that are names as whole numbers, and the names in their order; None where labels are no names.

    The classes are the names of the training examples in alphabetical order. Raises ValueError for a label of another
    part that is none of them.
    """
    names = {part: _names(pair) for part, pair in parts._asdict().items()}
    if names["train"] is None:
        strange = [part for part, found in names.items() if found is not None]
        if strange:
            raise ValueError(f"{strange[0]}: wanted labels like those of the training examples, got names")
        return parts, None
    classes = np.unique(names["train"])
    numbered = []
    for part, pair in parts._asdict().items():
        if pair is not None:
            found = names[part]
            if found is None:
                raise ValueError(
                    f"{part}: wanted names as labels, like the training examples, got {np.asarray(pair[1]).dtype}"
                )
            unknown = sorted(set(found.tolist()) - set(classes.tolist()))
            if unknown:
                raise ValueError(f"{part}: {unknown[0]!r} is a label of no training example")
            pair = (pair[0], np.searchsorted(classes, found).astype(np.int32))
        numbered.append(pair)
    return Split(*numbered), tuple(classes.tolist())


def load_data(name: str = "digits", *, seed: int = 0, validation: float | int = 0.1) -> Data:
    """A data set, scaled and split.

    Args:
        name: one of `DATA_SETS`. "mnist" and "fashion-mnist" are read from `$GROUNDSTATE_DATA/<name>/` or the user's
            cache, and else downloaded from OpenML into the cache; "cifar-10" is read from `$GROUNDSTATE_DATA/cifar10/`
            or the user's cache. Checksums are verified.
        seed: draws the validation examples. The test examples do not depend on it, so runs with different seeds are
            judged by the same ones.
        validation: the part of the training examples that is set aside for validation, a fraction below 1 or a
            number of examples; 0 for none. Like the test part it has the classes in the proportions of the whole.

    Images are divided by their largest possible value, so inputs lie in [0, 1]; those in colour are flattened as (row,
    column, colour), which networks of input shape (32, 32, 3) fold back. Tables are standardised by the mean and the
    standard deviation of the training examples. The test part is the published one of images ("cifar-10": its first
    1,000 where no more are at hand), and a fifth of the examples otherwise.

    Raises DataError for an unknown name, a senseless `validation`, and data that is absent or damaged.
    """
    if name not in DATA_SETS:
        close = difflib.get_close_matches(name, DATA_SETS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise DataError(f"data: wanted one of {', '.join(DATA_SETS)}, got {name!r}{hint}")
    if name in _IMAGES:
        load, classes = _IMAGES[name]
        train_x, train_y, test_x, test_y = load()
        rest, test = (_images(train_x, 255), train_y.astype(np.int32)), (_images(test_x, 255), test_y.astype(np.int32))
    else:
        bunch = _bundled(name)
        x, y = np.asarray(bunch.data), np.asarray(bunch.target, np.int32)
        classes = tuple(str(label) for label in bunch.target_names)
        whole = (_images(x, 16), y) if name == "digits" else (x, y)
        held = _held_out(y, round(_TEST_FRACTION * len(y)), _TEST_SEED)
        rest, test = _part(whole, ~held), _part(whole, held)
    held = _held_out(rest[1], _validation_size(validation, len(rest[1])), seed)
    parts = [_part(rest, ~held), _part(rest, held), test]
    scaling = "Inputs are divided by their largest possible value."
    if name in _TABLES:
        mean, deviation = parts[0][0].mean(axis=0), parts[0][0].std(axis=0)
        deviation[deviation == 0] = 1  # a feature that never varies becomes 0
        parts = [(((x - mean) / deviation).astype(np.float32), y) for x, y in parts]
        scaling = "Inputs are standardised by the training examples."
    part = validation if isinstance(validation, float) else int(validation)
    return Data(name, parts[0], parts[1] if held.any() else None, parts[2], classes, scaling, int(seed), part)


def _names(pair: Any) -> np.ndarray | None:
    """The labels of a pair (X, Y) where they are names."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        return None
    labels = pair[1]
    if isinstance(labels, list | tuple) and not (labels and all(isinstance(label, str) for label in labels)):
        return None
    if not isinstance(labels, list | tuple) and getattr(getattr(labels, "dtype", None), "kind", "") not in ("U", "O"):
        return None
    labels = np.asarray(labels)
    named = labels.ndim == 1 and all(isinstance(label, str) for label in labels.tolist())
    return labels.astype(str) if named else None


def _bundled(name: str) -> Any:
    from sklearn import datasets

    return getattr(datasets, "load_" + name.replace("-", "_"))()


def _images(pixels: np.ndarray, largest: int) -> np.ndarray:
    return np.divide(pixels.reshape(len(pixels), -1), largest, dtype=np.float32)


def _validation_size(validation: float | int, n: int) -> int:
    whole = isinstance(validation, (int, np.integer)) and not isinstance(validation, bool)
    if whole and 0 <= validation < n:
        return int(validation)
    if isinstance(validation, float) and 0 <= validation < 1 and round(validation * n) < n:
        return round(validation * n)
    raise DataError(
        f"validation: wanted a fraction from 0 to below 1, or a whole number of examples below {n}, which leaves "
        f"some to learn from, got {validation!r}"
    )


def _held_out(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """A mask of `size` examples drawn so that every class is held out in proportion."""
    order = np.random.default_rng(seed).permutation(len(labels))
    quantile = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        quantile[members] = (np.arange(len(members)) + 0.5) / len(members)
    mask = np.zeros(len(labels), bool)
    mask[order[np.argsort(quantile[order], kind="stable")[:size]]] = True
    return mask


def _part(examples: tuple[np.ndarray, np.ndarray], mask: np.ndarray) -> Examples:
    if mask.all():
        return examples
    return examples[0][mask], examples[1][mask]
