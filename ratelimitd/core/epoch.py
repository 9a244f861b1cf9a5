"""The time in which no count of a policy has lost, within its window, what had been charged to it.

Reset, evicted, assumed or begun again: from then on nobody sees what became of that count, so what was charged to it
for a refusal is no credit any more (memo.py). One for all meters of a policy: a limit that a reload removes, and
another brings back, may have lost its counts meanwhile.
"""


class Epoch:
    """`number` rises as one ends."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def end(self) -> None:
        """Begin the next one."""
        self.number += 1
