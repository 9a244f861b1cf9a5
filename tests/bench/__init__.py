"""The bench: a load generator and the floor to compare with, in C."""
