"""What was compiled is kept for the next process, and a cache that cannot be used harms nothing."""

import json
import math
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from substrates import HopfieldNetwork, ResistorNetwork, keep_compiled, start_session
from substrates.session import KEPT_DAYS, cache_folder
from substrates.solvers.host import on_host

ROOT = Path(__file__).parent.parent
VALUES = [math.sin(1.0) / k for k in (1, 2, 3)]


def begin(cache, *options, before="pass", **surroundings):
    script = f"{before}\nimport runpy, sys\ndel sys.argv[0]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    names = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE", "GROUNDSTATE_CACHE")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, ROOT / "tests" / "helpers" / "compiling.py", *options],
        env=kept | {"PYTHONPATH": str(ROOT), "GROUNDSTATE_CACHE": str(cache)} | surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    shown, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert not errors  # neither warnings nor XLA's log
    found = json.loads(shown)
    assert found["values"] == pytest.approx(VALUES, rel=1e-15)
    return found


def compiled(*given, **options):
    return finished(begin(*given, **options))


def entries(folder):
    return sorted(Path(folder).glob("jaxlib-*/*-cache"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache that one process has filled, and what that process said."""
    cache = tmp_path_factory.mktemp("cache") / "compiled"
    return cache, compiled(cache)


def copied(filled, tmp_path):
    subprocess.run(["cp", "-a", filled[0], tmp_path / "compiled"], check=True)
    return tmp_path / "compiled"


def test_a_second_process_finds_what_the_first_has_compiled(filled):
    cache, first = filled
    assert first["hits"] == 0
    assert first["misses"] == len(entries(cache)) >= 3
    second = compiled(cache)
    if second["rejected"]:
        pytest.skip(f"here XLA does not take back what it has compiled: {second['rejected'][0]}")
    assert (second["hits"], second["misses"]) == (first["misses"], 0)
    assert second["values"] == first["values"]


def test_only_the_user_can_read_or_write_the_folder(filled):
    cache, first = filled
    folder = Path(first["folder"])
    assert folder.parent == cache
    assert folder.name.startswith("jaxlib-")
    for path in (cache, folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("mode", "where", "said"),
    [
        (0o770, "folder", "others can write .*and so run code as you"),
        (0o1777, "folder", "others can write"),
        (0o777, "shelf", "others can replace .*all can write"),
    ],
)
def test_a_folder_that_others_can_write_is_left_aside(filled, tmp_path, mode, where, said):
    cache = copied(filled, tmp_path)
    (cache if where == "shelf" else entries(cache)[0].parent).chmod(mode)
    found = compiled(cache)
    assert (found["hits"], found["misses"], found["folder"]) == (0, 0, None)
    (warning,) = found["warnings"]
    assert re.search(said, warning)


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root gives files away")
def test_a_folder_of_another_user_is_left_aside(filled, tmp_path):
    cache = copied(filled, tmp_path)
    os.chown(entries(cache)[0].parent, 65534, -1)
    found = compiled(cache)
    assert found["folder"] is None
    assert "belongs to another user" in found["warnings"][0]


def test_a_folder_that_cannot_be_made_is_left_aside(tmp_path):
    (tmp_path / "file").write_text("no folder")
    found = compiled(tmp_path / "file" / "compiled")
    assert found["folder"] is None
    assert "what gets compiled is not kept" in found["warnings"][0]


def test_a_read_only_folder_is_read(filled):
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to nobody
        cache = copied(filled, Path(place))
        folder, kept = entries(cache)[0].parent, entries(cache)[1:]
        entries(cache)[0].unlink()
        if os.getuid() == 0:
            for path in (Path(place), cache, folder, *kept):
                os.chown(path, 65534, -1)
        folder.chmod(0o500)
        found = compiled(cache, "--as-nobody")
        folder.chmod(0o700)
        assert Path(found["folder"]) == folder
        assert not found["warnings"]
        assert entries(cache) == kept


def test_a_full_disk_costs_nothing_but_time(tmp_path):
    pytest.importorskip("resource")
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    found = compiled(tmp_path / "compiled", before=limit)
    assert found["hits"] == 0
    assert all("Error writing persistent compilation cache entry" in one for one in found["rejected"])
    again = compiled(tmp_path / "compiled")  # what was cut off is of no use
    assert again["hits"] == 0


@pytest.mark.parametrize(
    "spoil",
    [lambda whole: b"", lambda whole: whole[: len(whole) // 2], lambda whole: zlib.compress(b"no program at all")],
    ids=["empty", "cut off", "something else"],
)
def test_garbage_is_merely_useless(filled, tmp_path, spoil):
    cache = copied(filled, tmp_path)
    for path in entries(cache):
        path.write_bytes(spoil(path.read_bytes()))
    found = compiled(cache)
    assert found["hits"] == 0
    assert len(found["rejected"]) == len(entries(cache))


def test_four_processes_share_a_folder(tmp_path):
    found = [finished(process) for process in [begin(tmp_path / "compiled") for _ in range(4)]]
    assert len({one["folder"] for one in found}) == 1
    last = compiled(tmp_path / "compiled")
    if not last["rejected"]:
        assert (last["hits"], last["misses"]) == (len(entries(tmp_path / "compiled")), 0)


def test_what_was_compiled_long_ago_is_deleted_once_a_day(filled, tmp_path):
    cache = copied(filled, tmp_path)
    first, *rest = entries(cache)
    other, elsewhere = cache / "jaxlib-0.0.1-0", tmp_path / "mine-cache"
    other.mkdir()
    (other / "a-cache").touch()
    elsewhere.touch()
    (cache / "mine").touch()
    old = time.time() - 86400 * (KEPT_DAYS + 1)
    for path in (first, other / "a-cache", elsewhere, cache / "mine"):
        os.utime(path, (old, old))
    compiled(cache)
    assert first.exists()  # the day is not over
    os.utime(cache / "pruned", (old, old))
    found = compiled(cache)
    assert found["misses"] in (1, 1 + len(rest))  # all, where XLA rejects what it finds
    assert not (other / "a-cache").exists()
    assert elsewhere.exists()
    assert (cache / "mine").exists()
    os.utime(other, (old, old))
    os.utime(cache / "pruned", (old, old))
    compiled(cache)
    assert not other.exists()


def test_off_keeps_nothing():
    found = compiled("off")
    assert (found["hits"], found["misses"], found["folder"], found["warnings"]) == (0, 0, None, [])


def test_a_folder_that_jax_was_given_stays(tmp_path):
    found = compiled(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "theirs"))
    assert found["folder"] == str(tmp_path / "theirs")
    assert not (tmp_path / "ours").exists()


def test_the_cache_lies_where_the_platform_has_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "groundstate"
    monkeypatch.delenv("XDG_CACHE_HOME")
    for platform, folder in {"linux": ".cache", "darwin": "Library/Caches", "win32": "Local"}.items():
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
        assert cache_folder() == tmp_path / folder / "groundstate"


def test_a_session_has_the_precision_that_was_asked_for():
    try:
        start_session(32)
        assert not jax.config.values["jax_enable_x64"]
        with pytest.raises(ValueError, match="precision: wanted 32 or 64 bits, got 16"):
            start_session(16)
    finally:
        start_session()
    assert jax.config.values["jax_enable_x64"]
    assert keep_compiled() is None or keep_compiled().is_dir()


def test_a_session_asks_for_whole_products_unless_others_were_chosen():
    """What a GPU would make of it cannot be seen here; that every product asks for it can."""
    chosen = jax.config.values["jax_default_matmul_precision"]
    net = HopfieldNetwork.convolutional((4, 4, 1), (2,), 2, key=jax.random.key(0))
    try:
        jax.config.update("jax_default_matmul_precision", "tensorfloat32")
        start_session()
        assert jax.config.values["jax_default_matmul_precision"] == "tensorfloat32"
        jax.config.update("jax_default_matmul_precision", None)
        start_session()
        program = str(jax.make_jaxpr(lambda x: net.relax(x).state)(jnp.zeros((4, 4, 1))))
    finally:
        jax.config.update("jax_default_matmul_precision", chosen)
    products = [line for line in program.splitlines() if "precision=" in line]
    assert len(products) > 2
    assert all("HIGHEST" in line for line in products)


def lattice(side):
    """Resistors whose sparse factors are made on the host, and SciPy's voltages of all nodes but two corners."""
    conductance = np.random.default_rng(0).uniform(0.5, 1.5, 2 * side * (side - 1))
    ends = [0, side * side - 1]
    net = ResistorNetwork.lattice((side, side), conductance=conductance, inputs=ends, outputs=[side])
    i, j = np.asarray(net.edges).T
    entries = np.concatenate([-conductance, -conductance, conductance, conductance])
    places = np.concatenate([i, j, i, j]), np.concatenate([j, i, i, j])
    full = scipy.sparse.coo_array((entries, places), shape=(net.n, net.n)).tocsr()
    free = np.setdiff1d(np.arange(net.n), ends)
    return net, scipy.sparse.linalg.spsolve(full[free][:, free].tocsc(), -full[free][:, ends] @ [1.0, -1.0])


def elsewhere(function):
    """What a function returns in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


@pytest.fixture
def narrow_threads():
    """Threads begin with 32 bits, as in a process that has switched nothing on."""
    before = jax.config.values["jax_enable_x64"]
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", before)


def test_64_bits_of_one_thread_reach_the_host(narrow_threads):
    """Where they do not, XLA rounds what a solver is given in numpy, or stops at what comes back."""
    with jax.enable_x64(True):
        net, wanted = lattice(40)
        found = net.relax(jnp.array([1.0, -1.0]))
        assert found.converged
        assert np.max(np.abs(np.asarray(found.state) - wanted)) < 1e-12


@pytest.mark.parametrize("dtype", ["float64", "complex128", "int64", "uint64", "float32", "complex64", "int32", "bool"])
@pytest.mark.parametrize("shape", [(), (3, 2)])
def test_no_bit_is_lost_on_the_way_to_the_host(narrow_threads, monkeypatch, dtype, shape):
    """Another thread, which begins with 32 bits, takes and gives the numbers."""
    drawn = np.random.default_rng(0).integers(-9, 9, (2, *shape)) / 7
    given = (np.exp(1j * drawn) if "complex" in dtype else 1e6 * abs(drawn)).astype(dtype)
    call = jax.pure_callback
    placed = lambda words: jnp.asarray(np.asarray(words))
    away = lambda function: lambda *words: elsewhere(lambda: placed(function(*map(placed, words))))
    monkeypatch.setattr(jax, "pure_callback", lambda function, *rest, **options: call(away(function), *rest, **options))
    seen = []

    def host(numbers):
        seen.append(numbers)
        return numbers

    with jax.enable_x64(True):
        like = jax.ShapeDtypeStruct(shape, dtype)
        found = jax.vmap(lambda one: on_host(host, like, one, vmap_method="expand_dims"))(jnp.asarray(given))
        assert found.dtype == seen[0].dtype == dtype
        np.testing.assert_array_equal(seen[0], given)
        np.testing.assert_array_equal(found, given)


def test_the_host_has_no_derivative():
    like = jax.ShapeDtypeStruct((), jnp.float64)
    with pytest.raises(ValueError, match="computed on the host has no derivative"):
        jax.grad(lambda x: on_host(np.sin, like, x, vmap_method="sequential"))(1.0)
