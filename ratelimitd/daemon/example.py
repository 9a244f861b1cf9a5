"""`--example`: the reference configuration, with every setting and its default, which is a configuration as it is.

It knows nothing of what the settings mean.
"""

from pathlib import Path

from ratelimitd.errors import StartError

NAME = "conf/ratelimitd.toml"


def example() -> str:
    """The text of conf/ratelimitd.toml, from the installed package or the checkout. Raises StartError."""
    for folder in Path(__file__).parents[1:3]:
        file = folder / NAME
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise StartError(f"the installation lacks {NAME}")
