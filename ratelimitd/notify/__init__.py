"""Notices: who is told when an account reaches a share of its quota."""
