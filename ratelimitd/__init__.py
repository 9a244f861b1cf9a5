"""A Postfix policy service that limits how many recipients each account may send to."""

__version__ = "0.1.0"
