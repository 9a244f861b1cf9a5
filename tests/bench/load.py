"""Runs the load generator and reads its figures."""

import subprocess
from pathlib import Path
from typing import NamedTuple

import msgspec


class Figures(msgspec.Struct):
    """What load.c prints at the end."""

    per_second: float
    sent: int
    answered: int
    refused: int
    malformed: int
    lost: int
    stalled: int
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    seconds: float


class Used(NamedTuple):
    """How often an account was asked for, answered, and answered with DUNNO."""

    sent: int
    answered: int
    dunno: int


def begin(program: Path, address: str, *options: str) -> "subprocess.Popen[str]":
    """Start the generator; `options` are those of load.c."""
    return subprocess.Popen(
        [program, "-a", address, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )


def finish(load: "subprocess.Popen[str]", timeout: float = 120) -> Figures:
    """Wait for its end. Raises RuntimeError where it found a fault; it is never left running."""
    try:
        output, _ = load.communicate(timeout=timeout)
    finally:
        load.kill()
        load.wait()
    if load.returncode != 0:
        raise RuntimeError(f"load: exit status {load.returncode}: {output}")
    return msgspec.json.decode(output, type=Figures)


def run(program: Path, address: str, *options: str, timeout: float = 120) -> Figures:
    """Run the generator to its end."""
    return finish(begin(program, address, *options), timeout)


def accounts(file: Path) -> dict[str, Used]:
    """What the option -o wrote."""
    rows = (line.split("\t") for line in file.read_text(encoding="utf-8").splitlines())
    return {name: Used(int(sent), int(answered), int(dunno)) for name, sent, answered, dunno in rows}
