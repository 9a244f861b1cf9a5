"""What is known of an account: how far its count in memory can be believed."""

from enum import IntEnum


class Knowledge(IntEnum):
    """What a counter's `used` is based on."""

    UNREAD = 0  # charges from the journal alone, or another counter has replaced it: the store must be asked
    ASSUMED = 1  # the store could not be asked: the configured quota and a use of 0
    STORED = 2  # the stored count, and what was charged since
