"""A folder holds one run at a time, whoever asks and however the other one ends."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from learning import lock
from learning.lock import FolderLock, LockedError

HELPERS = Path(__file__).parent.parent / "helpers"


class Child:
    """A process that trains in a folder."""

    def __init__(self, folder, epochs, *words):
        paths = os.pathsep.join([str(HELPERS), str(HELPERS.parent.parent)])
        self.process = subprocess.Popen(
            [sys.executable, HELPERS / "shared_folder.py", folder, str(epochs), *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip

    def says(self, word):
        line = self.process.stdout.readline()
        assert word in line, line
        return self

    def end(self):
        """(exit code, what else it said)."""
        said, _ = self.process.communicate("\n", timeout=120)
        return self.process.returncode, said

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)


def epochs_in(folder):
    return [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_second_of_two_runs_is_refused_and_names_the_first(tmp_path):
    folder = tmp_path / "run"
    first = Child(folder, 6, "hold").says("started").says("holding")
    second = Child(folder, 6, "resume").says("started")
    code, said = second.end()
    assert code == 3
    assert f"out: {folder} is being written by process {first.process.pid} on " in said
    assert "wait until it ends, or name another folder" in said
    assert first.end()[0] == 0
    assert epochs_in(folder) == [1, 2, 3, 4, 5, 6]
    assert json.loads((folder / "summary.json").read_text())["epochs"] == 6
    assert not list(folder.glob(".*"))


@pytest.mark.slow
def test_a_killed_run_holds_nothing_and_one_of_two_resumes_goes_on(tmp_path):
    folder = tmp_path / "run"
    killed = Child(folder, 4, "hold").says("started").says("holding")
    killed.kill()
    assert (folder / ".lock").exists()
    resumed = Child(folder, 4, "resume", "hold").says("started").says("holding")
    code, said = Child(folder, 4, "resume").says("started").end()
    assert code == 3
    assert f"process {resumed.process.pid} on " in said
    assert resumed.end()[0] == 0
    assert epochs_in(folder) == [1, 2, 3, 4]
    assert not list(folder.glob(".*"))


def test_many_at_once_leave_one_run(tmp_path):
    folder = tmp_path / "run"
    children = [Child(folder, 30) for _ in range(3)]
    ended = [child.end() for child in children]
    assert sorted(code for code, _ in ended) == [0, 3, 3]
    assert all("is being written by" in said or "already holds a run" in said for code, said in ended if code)
    assert epochs_in(folder) == list(range(1, 31))


def test_two_in_one_process_exclude_each_other(tmp_path):
    held = FolderLock(tmp_path)
    with pytest.raises(LockedError, match=f"is being written by process {os.getpid()}"):
        FolderLock(tmp_path)
    held.release()
    held.release()
    assert not list(tmp_path.iterdir())
    FolderLock(tmp_path).release()


def test_no_two_of_many_threads_hold_it_together(tmp_path):
    inside, most, refused = [], [], []

    def work():
        for _ in range(200):
            try:
                held = FolderLock(tmp_path)
            except LockedError:
                refused.append(1)
                continue
            inside.append(1)
            most.append(len(inside))
            inside.pop()
            held.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) + len(refused) == 800
    assert not list(tmp_path.iterdir())


def test_a_system_without_locks_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_module", lambda name: None)
    with pytest.warns(UserWarning, match="cannot be locked on this system; see to it that no other run writes there"):
        held = FolderLock(tmp_path)
    held.release()
    assert not list(tmp_path.iterdir())


class OtherLocks:
    """Locks as Windows has them: a byte of a file, PermissionError where somebody has it."""

    LK_NBLCK = 2

    def __init__(self):
        self.taken = set()

    def locking(self, number, mode, size):
        assert (mode, size) == (self.LK_NBLCK, 1)
        assert os.lseek(number, 0, os.SEEK_CUR) == 2**30  # where no reader comes
        place = os.fstat(number).st_ino
        if place in self.taken:
            raise PermissionError(13, "Permission denied")
        self.taken.add(place)


def test_windows_locks_a_byte(tmp_path, monkeypatch):
    windows = OtherLocks()
    monkeypatch.setattr(lock, "_module", lambda name: windows if name == "msvcrt" else None)
    held = FolderLock(tmp_path)
    with pytest.raises(LockedError, match=f"process {os.getpid()}"):
        FolderLock(tmp_path)
    held.release()


def test_one_of_the_two_modules_is_here():
    found = [lock._module(name) for name in ("fcntl", "msvcrt")]
    assert [module is None for module in found].count(True) == 1
