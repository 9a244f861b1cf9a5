"""Notices: who is notified when an account reaches a share of its quota."""
