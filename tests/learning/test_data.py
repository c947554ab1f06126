"""Data sets: idx files, checksums, splits, scaling, and what is said when something is wrong."""

import gzip
import hashlib
import io
import os
import struct
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest

from learning import idx, load_data
from learning.data import DATA_SETS
from learning.idx import FILES, DataError, ImageSet, encode_idx, read_idx


def plain(shape, content, kind=8):
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content


@pytest.fixture
def images(monkeypatch, tmp_path):
    """A small stand-in for MNIST: 60,000 and 10,000 images need not be made for every test."""
    rng = np.random.default_rng(0)
    labels = np.arange(200, dtype=np.uint8) % 10
    arrays = [
        rng.integers(0, 256, (150, 28, 28), dtype=np.uint8), labels[:150],
        rng.integers(0, 256, (50, 28, 28), dtype=np.uint8), labels[150:],
    ]  # fmt: skip
    digests = tuple(hashlib.sha256(encode_idx(array)).hexdigest() for array in arrays)
    monkeypatch.setitem(idx.IMAGE_SETS, "mnist", ImageSet("mnist_784", digests))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GROUNDSTATE_DATA", raising=False)
    return arrays


def place(folder, arrays, suffix=".gz"):
    folder.mkdir(parents=True)
    for name, array in zip(FILES, arrays, strict=True):
        content = encode_idx(array)
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)


def forbid_network(monkeypatch, error=None):
    def fetch(*_, **__):
        raise error or AssertionError("the network was used")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)


# idx files


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("shape", [(6,), (3, 2), (2, 3, 1)])
def test_idx_by_hand(tmp_path, suffix, shape):
    path, content = tmp_path / f"file{suffix}", plain(shape, bytes(range(6)))
    path.write_bytes(gzip.compress(content) if suffix else content)
    np.testing.assert_array_equal(read_idx(path), np.arange(6).reshape(shape))
    assert encode_idx(read_idx(path)) == content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "two zero bytes"),
        (b"PK\3\4" + bytes(20), "two zero bytes"),
        (plain((2, 3), bytes(24), kind=0x0D), "unsigned bytes"),
        (plain((1, 1, 1, 1), bytes(1)), "1 to 3 axes"),
        (plain((2, 3), b"")[:9], "inside its header"),
        (plain((2, 3), bytes(5)), "6 bytes of data, but only 5"),
        (plain((2, 3), bytes(7)), "6 bytes of data, but more"),
        (plain((2**32 - 1, 2**32 - 1, 9), bytes(7)), "more than the"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_idx(tmp_path, content, words, suffix):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(DataError, match=words) as raised:
        read_idx(path)
    assert str(path) in str(raised.value)


def test_damaged_gzip(tmp_path):
    whole = gzip.compress(plain((100,), np.random.default_rng(0).bytes(100)))
    for name, content in {"cut": whole[:-30], "flipped": whole[:-20] + b"\0" + whole[-19:], "text": b"hello"}.items():
        path = tmp_path / f"{name}.gz"
        path.write_bytes(content)
        with pytest.raises(DataError, match="fetch it again") as raised:
            read_idx(path)
        assert str(path) in str(raised.value)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        file.write(plain((4,), b""))
        for _ in range(64):
            file.write(bytes(2**20))
    path.write_bytes(packed.getvalue())
    with pytest.raises(DataError, match="but more came"):
        read_idx(path)


# where the files come from


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("where", ["environment", "cache"])
def test_local_files(images, tmp_path, monkeypatch, suffix, where):
    forbid_network(monkeypatch)
    if where == "environment":
        monkeypatch.setenv("GROUNDSTATE_DATA", str(tmp_path / "data"))
        place(tmp_path / "data" / "mnist", images, suffix)
    else:
        place(tmp_path / "cache" / "groundstate" / "mnist", images, suffix)
    data = load_data("mnist", validation=0)
    np.testing.assert_array_equal(data.train[0], images[0].reshape(150, 784).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(data.train[1], images[1])
    np.testing.assert_array_equal(data.test[1], images[3])
    assert data.validation is None
    assert (data.n_inputs, data.n_outputs) == (784, 10)
    assert data.train[0].max() == 1.0
    assert data.train[0].min() == 0.0


def test_a_wrong_checksum_names_the_file(images, tmp_path, monkeypatch):
    forbid_network(monkeypatch)
    monkeypatch.setenv("GROUNDSTATE_DATA", str(tmp_path / "data"))
    images[2] = images[2].copy()
    images[2][3, 4, 5] ^= 1
    place(tmp_path / "data" / "mnist", images)
    with pytest.raises(DataError, match="checksum") as raised:
        load_data("mnist")
    assert str(tmp_path / "data" / "mnist" / "t10k-images-idx3-ubyte.gz") in str(raised.value)


def test_download_is_verified_and_kept(images, tmp_path, monkeypatch):
    asked = []
    pixels = np.concatenate([images[0], images[2]]).reshape(200, 784).astype(float)
    labels = np.concatenate([images[1], images[3]]).astype(str).astype(object)
    # the published sizes, so that the split in the original order is exercised
    padding = 60000 - 150
    pixels = np.concatenate([pixels[:150], np.zeros((padding, 784)), pixels[150:]])
    labels = np.concatenate([labels[:150], np.full(padding, "0", object), labels[150:]])
    arrays = [np.concatenate([images[0], np.zeros((padding, 28, 28), np.uint8)]), labels[:60000].astype(np.uint8)]
    arrays += images[2:]
    digests = tuple(hashlib.sha256(encode_idx(array)).hexdigest() for array in arrays)
    monkeypatch.setitem(idx.IMAGE_SETS, "mnist", ImageSet("mnist_784", digests))

    def fetch(name, **options):
        asked.append((name, options["version"]))
        return SimpleNamespace(data=pixels, target=labels)

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    first = load_data("mnist")
    assert asked == [("mnist_784", 1)]
    second = load_data("mnist")
    assert len(asked) == 1
    for part in ("train", "validation", "test"):
        for a, b in zip(getattr(first, part), getattr(second, part), strict=True):
            np.testing.assert_array_equal(a, b)
    assert sorted(os.listdir(tmp_path / "cache" / "groundstate" / "mnist")) == sorted(f"{file}.gz" for file in FILES)

    for file in (tmp_path / "cache" / "groundstate" / "mnist").iterdir():
        file.unlink()
    pixels[7, 300] += 1
    with pytest.raises(DataError, match=r"OpenML's mnist_784.*checksum"):
        load_data("mnist")
    assert not list((tmp_path / "cache" / "groundstate" / "mnist").iterdir())


def test_offline_says_what_to_place_where(images, tmp_path, monkeypatch):
    forbid_network(monkeypatch, URLError("no route to host"))
    monkeypatch.setenv("GROUNDSTATE_DATA", str(tmp_path / "data"))
    with pytest.raises(DataError) as raised:
        load_data("mnist")
    message = str(raised.value)
    for part in (
        "no route to host",
        *FILES,
        str(tmp_path / "data" / "mnist"),
        str(tmp_path / "cache"),
        "GROUNDSTATE_DATA",
    ):
        assert part in message


# splits and scaling

TABLES = {"digits": (1797, 64, 10), "iris": (150, 4, 3), "wine": (178, 13, 3), "breast-cancer": (569, 30, 2)}


@pytest.mark.parametrize("name", TABLES)
def test_parts_are_the_whole(name):
    n, n_inputs, n_outputs = TABLES[name]
    data = load_data(name)
    parts = [data.train, data.validation, data.test]
    assert sum(len(y) for _, y in parts) == n
    assert (data.n_inputs, data.n_outputs) == (n_inputs, n_outputs)
    for x, y in parts:
        assert x.shape == (len(y), n_inputs)
        assert x.dtype == np.float32
        # every class in proportion, to within one example
        share = np.bincount(np.concatenate([y for _, y in parts])) * len(y) / n
        assert np.all(np.abs(np.bincount(y, minlength=n_outputs) - share) < 1.5)
    assert name in repr(data)


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    data = load_data()
    parts = [data.train, data.validation, data.test]
    found = {(x.tobytes(), int(y)) for part in parts for x, y in zip(*part, strict=True)}
    assert found == {
        ((x / 16).astype(np.float32).tobytes(), int(y)) for x, y in zip(bunch.data, bunch.target, strict=True)
    }


def test_tables_are_standardised_by_the_training_part_alone():
    from sklearn.datasets import load_wine

    data = load_data("wine")
    np.testing.assert_allclose(data.train[0].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(data.train[0].std(axis=0), 1, atol=1e-6)
    assert np.abs(data.test[0].mean(axis=0)).max() > 1e-3
    whole = np.concatenate([data.train[0], data.validation[0], data.test[0]])
    x = load_wine().data
    # standardising is affine, so the standardised whole is what standardising the data gives
    rescaled = lambda x: np.sort((x - x.mean(axis=0)) / x.std(axis=0), axis=0)
    np.testing.assert_allclose(rescaled(whole.astype(float)), rescaled(x), atol=1e-5)


def test_the_seed_moves_the_validation_part_and_not_the_test():
    a, b, c = load_data("iris", seed=0), load_data("iris", seed=1), load_data("iris", seed=0)
    np.testing.assert_array_equal(a.train[0], c.train[0])
    np.testing.assert_array_equal(a.test[1], b.test[1])
    assert not np.array_equal(a.validation[0], b.validation[0])


@pytest.mark.parametrize(("validation", "size"), [(0, 0), (0.0, 0), (0.25, 30), (7, 7), (119, 119)])
def test_size_of_the_validation_part(validation, size):
    data = load_data("iris", validation=validation)
    assert (0 if data.validation is None else len(data.validation[1])) == size
    assert len(data.train[1]) == 120 - size


@pytest.mark.parametrize("validation", [1.0, -0.1, 120, -1, True, "all", float("nan"), 0.9999])
def test_senseless_validation(validation):
    with pytest.raises(DataError, match="validation: wanted"):
        load_data("iris", validation=validation)


def test_unknown_name():
    with pytest.raises(DataError, match="did you mean 'fashion-mnist'") as raised:
        load_data("fashion_mnist")
    assert all(name in str(raised.value) for name in DATA_SETS)
