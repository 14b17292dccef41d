"""A process of its own: whatever becomes of its streams, and whenever it is stopped, it ends in an exit code
that is documented, without a traceback."""

import json
import os
import signal
import subprocess
import sys
import termios
from io import StringIO
from pathlib import Path
from random import Random

import pandas as pd
import pytest
from rich.console import Console

from fovea.__main__ import main
from fovea.study.commands import command
from fovea.study.report.terminal import print_lines, print_text
from fovea.study.run.progress import Progress
from fovea.study.streams import plain, print_summary

ROOT = Path(__file__).resolve().parents[1]
MOMENTS = [0.0, *(round(Random(seed).uniform(0, 1.5), 2) for seed in (1, 2))]  # seconds
CHEAP = [sys.executable, "run.py", "list=sweeps"]
STOPPED_AFTER = """
import os, signal, sys, threading, time
import fovea.__main__ as fovea
sys.argv = ["run.py", "plan=true", "n=1", "sweep=none"]

def send():
    while signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:  # the program has not begun
        time.sleep(0.001)
    time.sleep({seconds})
    for line in sys.stdin:
        os.kill(os.getpid(), int(line))

threading.Thread(target=send, daemon=True).start()
sys.exit(fovea.program())
"""


def run(line, **environment):
    """The exit code, stdout and stderr of a command as a shell has it."""
    command = line.replace("RUN", " ".join(CHEAP))
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, env=os.environ | environment
    )
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr.decode()


def test_a_closed_stdout_is_no_failure():
    assert run("RUN >&-") == (0, b"", "")


def test_a_closed_stderr_is_no_failure():
    code, out, _ = run("RUN 2>&-")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["list"] == "sweeps"


def test_a_full_stdout_is_told():
    assert run("RUN > /dev/full") == (0, b"", "not all of it could be printed: No space left on device\n")


def test_a_pipe_that_ends_is_no_failure():
    code, out, err = run("RUN | head -1")
    assert (code, out.split(), err) == (0, [b"name"], "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_has_the_table_and_the_same_object(encoding):
    command = f"{sys.executable} run.py show=results/embedded/ras-lumina_tiny-ratio"
    code, out, _ = run(command, PYTHONIOENCODING=encoding)
    assert code == 0
    *lines, last = out.decode(encoding).splitlines()
    assert json.loads(last)["rows"][0]["label"] == "dense"
    times = "1.00×" if encoding != "ascii" else "1.00x"
    assert any(line.startswith("dense ") and times in line for line in lines)
    table = pd.read_parquet("results/embedded/ras-lumina_tiny-ratio/table.parquet").set_index("label")
    value, error = table.loc["ras ratio=0.75", ["psnr", "psnr_se"]]
    shown = f"{value:.2f} {'+-' if encoding == 'ascii' else '±'} {error:.2f}"
    assert any(shown in line for line in lines)


def test_a_terminal_of_one_column_has_the_object_whole():
    here, there = os.openpty()
    termios.tcsetwinsize(there, (24, 1))
    done = subprocess.Popen(CHEAP, cwd=ROOT, stdout=there, stderr=subprocess.PIPE)
    os.close(there)
    out = b""
    try:
        while part := os.read(here, 65536):
            out += part
    except OSError:  # the other end is closed
        pass
    os.close(here)
    assert done.communicate()[1] == b""
    assert done.returncode == 0
    assert json.loads(out.decode().splitlines()[-1])["list"] == "sweeps"


def test_a_working_folder_that_is_gone_is_refused(tmp_path):
    gone = f"mkdir {tmp_path}/x && cd {tmp_path}/x && rmdir {tmp_path}/x"
    line = f"{gone} && {sys.executable} {ROOT}/run.py list=sweeps"
    assert run(line) == (2, b"", "refused: the working folder is gone; change to another one\n")


def test_another_system_is_refused_in_a_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert main(["plan=true"]) == 2
    assert capsys.readouterr().err.startswith("refused: Fovea runs on Linux and macOS")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", MOMENTS)
def test_stopped_at_any_moment(number, seconds):
    """Twice in a row, as the impatient do."""
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_AFTER.format(seconds=seconds)],
        input=f"{number}\n{number}\n",
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 128 + number)  # 0: it was done by then
    told = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[number]
    if done.returncode:
        assert f"{told}: what is finished is kept; continue with the same command" in done.stderr


def test_what_interrupts_from_within_is_told(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "execute", interrupted)
    assert main(["list=sweeps"]) == 130
    assert "interrupted: " in capsys.readouterr().err


HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b2J \x7f \u202eevil\u2066"


def test_what_steers_a_terminal_is_shown_as_signs(capsys):
    assert plain(HOSTILE) == "␛[31mred␛]0;title␇ �2J ␡ �evil�"
    assert plain("a fox\n\tin the snow, 雪の狐 🦊") == "a fox\n\tin the snow, 雪の狐 🦊"
    stream = StringIO()
    console = Console(file=stream, width=200)
    print_text(HOSTILE, console)
    print_lines([[HOSTILE], [HOSTILE]], console)
    assert stream.getvalue().count(plain(HOSTILE)) == 3
    with Progress() as progress:
        progress.say(HOSTILE)
    print_summary({"label": HOSTILE})
    out, err = capsys.readouterr()
    assert err.strip() == plain(HOSTILE)
    assert json.loads(out) == {"label": HOSTILE}
    assert not set(out) & set(HOSTILE) - set("[31mred]0;title 2J evil")
    assert main([f"list={HOSTILE}"]) == 2
    assert plain(HOSTILE) in capsys.readouterr().err
