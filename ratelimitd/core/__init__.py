"""The decision: limits, windows, counts, the memo. Pure: no I/O, no trio, no clock."""
