"""Owners: processes with equal pids and host names are different owners."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kdbench.runs import lease, owner
from kdbench.runs.owner import Owner

ACQUIRE = """
import pathlib, sys
from kdbench.runs import lease
from kdbench.runs.owner import Owner
me = Owner.me()
got = lease.acquire(pathlib.Path(sys.argv[1]), me)
print(me.pid, me.process.replace(" ", ","), "got" if got else "refused", flush=True)
sys.stdin.read()
"""
OWN_PIDS = ("unshare", "--pid", "--fork", "--kill-child")


def container(folder: Path, *options: str) -> "subprocess.Popen[str]":
    """Start a process that is number 1 of its pid namespace and asks for the lease of a folder."""
    command = [*OWN_PIDS, *options, sys.executable, "-c", ACQUIRE, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def namespaces() -> None:
    if subprocess.run([*OWN_PIDS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not permit pid namespaces")


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("options", [("--mount-proc",), ()], ids=["own proc", "proc of the host"])
def test_equal_pids_in_two_namespaces_are_two_owners(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    with container(tmp_path, *options) as first, container(tmp_path, *options) as second:
        answers = []
        for process in (first, second):
            assert process.stdout is not None
            answers.append(process.stdout.readline().split())
        held = lease.holder(tmp_path)
        assert held is not None and held.owner.pid == 1
        assert not held.is_lost()  # this process cannot see that one
        assert lease.acquire(tmp_path, Owner.me()) is None
        for process in (first, second):
            process.kill()
    assert [pid for pid, _, _ in answers] == ["1", "1"]
    assert answers[0][1] != answers[1][1]
    assert {outcome for _, _, outcome in answers} == {"got", "refused"}


def test_child_is_described_as_by_itself() -> None:
    code = "from kdbench.runs.owner import Owner; print(Owner.me().process, flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        described = child.stdout.readline().strip()
        assert Owner.of_child(child.pid).process == described
        child.kill()


def test_process_that_proc_hides_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``hidepid``, ``/proc`` hides the processes of other users."""
    theirs = replace(Owner.me(), pid=os.getppid())
    monkeypatch.setattr(owner, "_stat", lambda pid: None)
    assert not theirs.is_dead()

    def kill(pid: int, signal: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    assert theirs.is_dead()


def test_owner_is_named_for_people() -> None:
    assert str(Owner("node7", "", 12, "")) == "node7 (pid 12)"
    assert str(Owner("node7", "", 12, "", job="7_1")) == "node7 (pid 12, job 7_1)"


def test_owner_with_an_impossible_pid_is_dead() -> None:
    assert replace(Owner.me(), pid=10**30).is_dead()
