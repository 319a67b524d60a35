import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_grids import make_record
from small_grids import expanded, python, write

from kdbench.report.plots import in_background
from kdbench.runs import records

pytestmark = pytest.mark.skipif(
    not in_background.THREADS.is_dir(), reason="needs a count of threads"
)

REPORT = """
import os, signal, sys, threading, time
from kdbench.report.plots import in_background as drawing
from kdbench.runs import environment as machine
machine.cores = lambda: {cores}
{more}
from kdbench.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print("drawn here:", "matplotlib" in sys.modules)
    sys.exit(end.code)
"""
KILLED = "drawing._work = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
SILENT = "drawing._work = lambda *_: None"
THREAD = "threading.Thread(target=time.sleep, args=(3,), daemon=True).start()"
BROKEN = """
def spoil(real):
    def spoilt(*args):
        from kdbench.report.plots import accuracy_per_seed as seeds
        seeds._legend = broken
        return real(*args)
    return spoilt
def broken(*_):
    raise ArithmeticError("no ink")
drawing._work, drawing.draw_here = spoil(drawing._work), spoil(drawing.draw_here)
"""

TWO_PROCESSES = """
import os, sys, time
from pathlib import Path
from types import SimpleNamespace
from kdbench.report.plots import in_background as drawing
from kdbench.runs import environment as machine
machine.cores = lambda: 2
def work(*args):
    from kdbench.report.plots import pictures
    def every_seed(_):
        Path(sys.argv[1]).write_text(str(os.getpid()))
        {in_drawing}
    pictures.every_seed, pictures.picture = every_seed, lambda plot: plot
    real(*args)
real, drawing._work = drawing._work, work
with drawing.drawing_process(None) as draw:
    {in_report}
"""
LONG = "time.sleep(600)"
DRAW = "draw(SimpleNamespace(frame=1, decision=2))()"
WAIT = """id_file = Path(sys.argv[1])
    while not (id_file.exists() and id_file.read_text()):
        time.sleep(0.05)
    """


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Return the arguments of a report on two methods and two seeds."""
    changes = {"methods": ["kd", "at"], "seeds": [0, 1]}
    for i, run in enumerate(expanded(**changes).runs):
        records.folder(tmp_path / "runs", run.id).mkdir(parents=True)
        records.write(tmp_path / "runs", make_record(run, 70.0 + i))
    folders = ("--runs", tmp_path / "runs", "--results", tmp_path / "results")
    return ["report", "--grid", *map(str, (write(tmp_path, **changes), *folders))]


def report(
    command: list[str], cores: int = 2, more: str = ""
) -> tuple[subprocess.CompletedProcess[str], dict[str, bytes]]:
    """Run the command; return the finished process and the files that it wrote."""
    done = python(REPORT.format(cores=cores, more=more), *command)
    written = [path for path in Path(command[-1]).rglob("*") if path.is_file()]
    files = {str(path): path.read_bytes() for path in written}
    for path in written:
        path.unlink()
    return done, files


def test_bytes_do_not_depend_on_the_drawing_process(command: list[str]) -> None:
    _, plain = report(command, cores=1)
    assert sum(name.endswith(".png") for name in plain) == 4
    for cores, more, draws_itself in (
        (2, "", False), (1, "", True), (2, THREAD, True), (2, KILLED, True), (2, SILENT, True)
    ):  # fmt: skip
        done, files = report(command, cores, more)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"drawn here: {draws_itself}" in done.stdout
        assert files == plain


@pytest.mark.parametrize("threads", [None, "3"])
def test_report_starts_no_blas_threads(command: list[str], threads: str | None) -> None:
    name = "OPENBLAS_NUM_THREADS"
    more = f"os.environ.pop({name!r}, None)"
    more = f"os.environ[{name!r}] = {threads!r}" if threads else more
    code = REPORT.format(cores=1, more=more).replace(
        "sys.exit(end.code)",
        f"""
    import threadpoolctl
    pools = [p for p in threadpoolctl.threadpool_info() if p["internal_api"] == "openblas"]
    print(all(pool["num_threads"] == 1 for pool in pools), os.environ.get({name!r}))
""",
    )
    printed = python(code, *command).stdout.split()[-2:]
    assert printed[1] == str(threads)
    assert printed[0] == "True" or threads


@pytest.mark.parametrize("cores", [1, 2])
def test_error_is_shown_once_with_its_traceback(command: list[str], cores: int) -> None:
    done, files = report(command, cores, BROKEN)
    assert done.returncode == 1 and not files
    assert done.stderr.count("Traceback") == 1 and done.stderr.count("no ink") == 1
    assert "in broken" in done.stderr


def start(folder: Path, in_drawing: str, in_report: str) -> tuple[subprocess.Popen[str], int]:
    """Start a report whose drawing process has begun; return it and the id of that process."""
    id_file = folder / "process"
    code = TWO_PROCESSES.format(in_drawing=in_drawing, in_report=in_report)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(id_file)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: id_file.exists() and bool(id_file.read_text()))
    return process, int(id_file.read_text())


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError


def gone(number: int) -> bool:
    """Check whether a process has ended, even if its exit code was not collected."""
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("in_report", [DRAW, LONG])
def test_ctrl_c_ends_both_processes_quietly(tmp_path: Path, in_report: str) -> None:
    process, other = start(tmp_path, LONG, in_report)
    if in_report == LONG:  # end the drawing process first, which prints nothing
        os.kill(other, signal.SIGINT)
        wait_until(lambda: gone(other))
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert errors.count("Traceback") == 1 and errors.endswith("KeyboardInterrupt\n")
    assert gone(other)


def test_unpicklable_statistics_raise_an_error(tmp_path: Path) -> None:
    process, other = start(tmp_path, "pass", WAIT + DRAW.replace("2", "lambda: 0"))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "pickle" in errors and gone(other)


def test_error_in_the_report_ends_the_drawing_process(tmp_path: Path) -> None:
    process, other = start(tmp_path, LONG, WAIT + "raise ArithmeticError")
    assert process.wait(60) == 1 and gone(other)
    process.communicate()


def test_drawing_process_ends_when_a_report_is_killed(tmp_path: Path) -> None:
    process, other = start(tmp_path, "pass", LONG)
    assert not gone(other)
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: gone(other))
