"""`ratelimitctl report`: what accounts used in the last days, from the history."""
