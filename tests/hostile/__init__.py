"""Hostile input and overload."""
