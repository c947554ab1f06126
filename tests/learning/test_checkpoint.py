"""Checkpoints give back what was saved, or say what is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learning.checkpoint import CheckpointError, load_checkpoint, save_checkpoint, write_atomically

TREE = {
    "half": jnp.asarray([1.5, jnp.nan], jnp.bfloat16),
    "complex": jnp.asarray([[1 + 2j]]),
    "whole": (jnp.asarray(3, jnp.int32), jnp.zeros((0, 4))),
    "key": jax.random.key(5),
    "nothing": None,
    "name": "not an array",
}


def test_round_trip_of_every_kind(tmp_path):
    path = tmp_path / "c.npz"
    save_checkpoint(path, TREE, {"epoch": 3, "rows": [{"cost": 0.1}]})
    blank = jax.tree.map(lambda leaf: leaf if isinstance(leaf, str) else jnp.zeros_like(leaf), {**TREE, "key": None})
    tree, facts = load_checkpoint(path, {**blank, "key": jax.random.key(0)})
    assert facts == {"epoch": 3, "rows": [{"cost": 0.1}]}
    assert tree["name"] == "not an array"
    np.testing.assert_array_equal(jax.random.key_data(tree["key"]), jax.random.key_data(TREE["key"]))
    for name in ("half", "complex"):
        assert tree[name].dtype == TREE[name].dtype
        assert np.asarray(tree[name]).tobytes() == np.asarray(TREE[name]).tobytes()
    assert tree["whole"][0] == 3
    assert tree["whole"][1].shape == (0, 4)


@pytest.mark.parametrize(
    ("like", "words"),
    [
        ({"a": jnp.zeros(3)}, r"\['a'\] is float64\[3\] here and float64\[2\] in the file"),
        ({"a": jnp.zeros(2, jnp.float32)}, r"float32\[2\] here and float64\[2\] in the file"),
        ({"a": jnp.zeros(2), "b": jnp.zeros(1)}, r"\['b'\] is float64\[1\] here and absent in the file"),
        ({}, r"\['a'\] is absent here"),
    ],
)
def test_foreign_arrays_are_named(tmp_path, like, words):
    save_checkpoint(tmp_path / "c.npz", {"a": jnp.zeros(2)}, {})
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(tmp_path / "c.npz", like)


def test_every_truncation_is_noticed(tmp_path):
    path, tree = tmp_path / "c.npz", {"a": jnp.arange(20.0)}
    save_checkpoint(path, tree, {})
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"c\.npz: truncated or damaged"):
            load_checkpoint(path, tree)


def test_every_flipped_byte_of_data_is_noticed(tmp_path):
    path, tree = tmp_path / "c.npz", {"a": jnp.arange(1.0, 21.0)}
    save_checkpoint(path, tree, {})
    content = path.read_bytes()
    start = content.index(np.arange(1.0, 21.0).tobytes())
    for at in range(start, start + 160, 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(CheckpointError):
            load_checkpoint(path, tree)


def outcome(path, tree):
    """Whether a file loads, and then as what was saved; any error but the clear one comes through."""
    try:
        loaded, facts = load_checkpoint(path, tree)
    except CheckpointError:
        return False
    assert facts == {"epoch": 1}
    np.testing.assert_array_equal(loaded["a"], tree["a"])
    return True


@pytest.mark.filterwarnings("ignore")  # of numpy and zipfile, about what they read
def test_no_damaged_byte_ends_in_another_error_or_in_other_numbers(tmp_path):
    path, tree = tmp_path / "c.npz", {"a": jnp.arange(1.0, 4.0)}
    save_checkpoint(path, tree, {"epoch": 1})
    content, loads = path.read_bytes(), []
    for at in range(len(content)):
        for flip in (0x01, 0xFF):
            path.write_bytes(content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :])
            loads.append(outcome(path, tree))
    assert 0.5 < np.mean(np.logical_not(loads)) < 1  # some bytes, such as dates, mean nothing


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("record", "at", "_what"),
    [
        (b"PK\x03\x04", 6, "flags"), (b"PK\x03\x04", 8, "compression"), (b"PK\x01\x02", 6, "version"),
        (b"PK\x01\x02", 8, "flags"), (b"PK\x01\x02", 10, "compression"), (b"PK\x01\x02", 42, "offset"),
        (b"PK\x05\x06", 10, "entries"), (b"\x93NUMPY", 6, "version"), (b"\x93NUMPY", 8, "length"),
    ],
    ids=str,
)  # fmt: skip
def test_every_value_of_a_field_of_the_archive_is_survived(tmp_path, record, at, _what):
    path, tree = tmp_path / "c.npz", {"a": jnp.arange(1.0, 4.0)}
    save_checkpoint(path, tree, {"epoch": 1})
    content = path.read_bytes()
    place = content.index(record) + at
    loads = []
    for value in range(256):
        path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
        loads.append(outcome(path, tree))
    assert loads[content[place]]


@pytest.mark.parametrize("what", ["compression", "encryption"])
def test_what_zipfile_cannot_read_is_said_like_any_damage(tmp_path, what):
    path, tree = tmp_path / "c.npz", {"a": jnp.arange(20.0)}
    save_checkpoint(path, tree, {})
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + (10 if what == "compression" else 8)] = 99 if what == "compression" else 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"c\.npz: truncated or damaged, or no checkpoint; remove this file"):
        load_checkpoint(path, tree)


def test_equal_trees_are_equal_bytes(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "a.npz", TREE, {"epoch": 1})
    monkeypatch.setattr("time.time", lambda: 2e9)
    save_checkpoint(tmp_path / "b.npz", TREE, {"epoch": 1})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_another_format_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("learning.checkpoint._FORMAT", 1)
    save_checkpoint(tmp_path / "c.npz", TREE, {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="wanted format 2, got 1; another version of groundstate wrote it"):
        load_checkpoint(tmp_path / "c.npz", TREE)


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def forbidden(*_):
        raise PermissionError("Permission denied")

    monkeypatch.setattr("learning.checkpoint.open", forbidden, raising=False)
    with pytest.raises(CheckpointError, match=r"c\.npz: cannot be read \(Permission denied\); ask for the right"):
        load_checkpoint(tmp_path / "c.npz", {})


def test_pickles_are_refused(tmp_path):
    path = tmp_path / "c.npz"
    np.savez(path, header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CheckpointError, match="truncated or damaged, or no checkpoint; remove this file") as raised:
        load_checkpoint(path, {})
    assert "allow_pickle" in str(raised.value.__cause__)
    assert "allow_pickle" not in str(raised.value)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "absent.npz", {})


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"new")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
