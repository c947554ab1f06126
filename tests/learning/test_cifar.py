"""CIFAR-10: the published archive and its arrays, checksums, the order of colours, what is said when it is absent."""

import hashlib
import io
import lzma
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learning import cifar, load_data
from learning.cifar import ARCHIVE, ARRAYS, DIGESTS
from learning.idx import DataError
from substrates import HopfieldNetwork, PredictiveCodingNetwork


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("GROUNDSTATE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data" / "cifar10").mkdir(parents=True)
    return tmp_path / "data" / "cifar10"


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    drawn = lambda n: (rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), np.arange(n, dtype=np.uint8) % 10)
    return [*drawn(50), *drawn(10)]


def record(image, label):
    """As the page of the data set tells it: the label, then 1,024 bytes of red, of green and of blue, row by row."""
    return bytes([label]) + b"".join(bytes(image[:, :, colour].ravel().tolist()) for colour in range(3))


def store(path, content, monkeypatch):
    path.write_bytes(content)
    monkeypatch.setitem(DIGESTS, path.name, hashlib.sha256(content).hexdigest())


def archive(images, left_out=()):
    train, labels, test, test_labels = images
    parts = {f"data_batch_{k + 1}.bin": (train[10 * k :][:10], labels[10 * k :][:10]) for k in range(5)}
    parts |= {"test_batch.bin": (test, test_labels)}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for name, pair in parts.items():
            if name not in left_out:
                content = b"".join(record(*each) for each in zip(*pair, strict=True))
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def place_arrays(folder, images, monkeypatch):
    for name, array in zip(ARRAYS, images, strict=True):
        packed = io.BytesIO()
        np.save(packed, array)
        content = packed.getvalue()
        store(folder / name, lzma.compress(content) if name.endswith(".xz") else content, monkeypatch)


@pytest.mark.parametrize("form", ["archive", "arrays", "archive in the cache"])
def test_every_pixel_comes_back(folder, images, monkeypatch, form):
    if form == "arrays":
        place_arrays(folder, images, monkeypatch)
    else:
        if "cache" in form:
            folder = folder.parents[1] / "cache" / "groundstate" / "cifar10"
            folder.mkdir(parents=True)
        store(folder / ARCHIVE, archive(images), monkeypatch)
    data = load_data("cifar-10", validation=0)
    for (x, y), pixels, labels in ((data.train, *images[:2]), (data.test, *images[2:])):
        np.testing.assert_array_equal(x.reshape(-1, 32, 32, 3), pixels.astype(np.float32) / np.float32(255))
        np.testing.assert_array_equal(y, labels)
    assert (data.n_inputs, data.n_outputs, data.classes[6]) == (3072, 10, "frog")
    assert "10 for the test" in repr(data)


def test_flat_images_are_folded_as_they_were_flattened(folder, images, monkeypatch):
    """A kernel that passes green alone tells the order of the colours in a network."""
    place_arrays(folder, images, monkeypatch)
    x = jnp.asarray(load_data("cifar-10", validation=0).train[0][3])
    green = images[0][3, :, :, 1] / 255
    key = jax.random.key(0)
    net = HopfieldNetwork.convolutional((32, 32, 3), (1,), 10, key=key, pooling=None)
    coding = PredictiveCodingNetwork.convolutional((32, 32, 3), (1,), (10,), key=key)
    for coupling, u in ((net.coupling[0], net.clamped(x)), (coding.coupling[0], x.reshape(coding.shape))):
        passing = jnp.zeros_like(coupling.weight).at[1, 1, 1, 0].set(1)
        moved = type(coupling)(passing, None).convolve(u.astype(passing.dtype))
        np.testing.assert_allclose(moved[:, :, 0], green, rtol=1e-6)


@pytest.mark.parametrize("name", [ARCHIVE, ARRAYS[0], ARRAYS[3]])
def test_a_wrong_checksum_names_the_file(folder, images, monkeypatch, name):
    store(folder / ARCHIVE, archive(images), monkeypatch) if name == ARCHIVE else None
    place_arrays(folder, images, monkeypatch)
    content = bytearray((folder / name).read_bytes())
    content[-9] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match="checksum is not that of the published data") as raised:
        load_data("cifar-10")
    assert str(folder / name) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (ARCHIVE, b"no archive"),
        (ARCHIVE, "incomplete"),
        (ARCHIVE, "cut"),
        (ARRAYS[0], b"no xz"),
        (ARRAYS[0], lzma.compress(b"no array")),
        (ARRAYS[1], b""),
    ],
)
def test_files_that_cannot_be_read(folder, images, monkeypatch, name, content):
    """With checksums that agree: only the reading can tell."""
    place_arrays(folder, images, monkeypatch)
    if content == "incomplete":
        content = archive(images, left_out=("data_batch_3.bin",))
    elif content == "cut":
        content = archive(images)[:-4000]
    store(folder / name, content, monkeypatch)
    with pytest.raises(DataError, match="cannot be read") as raised:
        load_data("cifar-10")
    assert str(folder / name) in str(raised.value)


def test_pickles_are_not_opened(folder, images, monkeypatch):
    place_arrays(folder, images, monkeypatch)
    packed = io.BytesIO()
    np.save(packed, np.array([{}], object), allow_pickle=True)
    store(folder / ARRAYS[1], packed.getvalue(), monkeypatch)
    with pytest.raises(DataError, match="cannot be read"):
        load_data("cifar-10")


def test_absent_data_says_where_they_are_wanted(folder):
    (folder / ARRAYS[0]).write_bytes(b"three of four are missing")
    with pytest.raises(DataError) as raised:
        load_data("cifar-10")
    words = str(raised.value)
    assert all(part in words for part in (ARCHIVE, "cs.toronto.edu", str(folder), "groundstate/cifar10", "as it is"))


def test_the_checksums_are_of_files_that_are_there():
    assert set(DIGESTS) == {ARCHIVE, *ARRAYS}
    assert len(set(cifar.CLASSES)) == 10
    assert all(len(digest) == 64 for digest in DIGESTS.values())
