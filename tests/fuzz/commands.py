"""What a line on the control socket must give: a command that means itself, or a refusal."""

from ratelimitd.control.commands import Command, Refused, decode, encode


def check(data: bytes) -> None:
    """Read a command from these bytes. Raises AssertionError, or whatever the reader ought not to raise."""
    try:
        command = decode(data)
    except Refused:
        return
    assert isinstance(command, Command)
    assert decode(encode(command)) == command
