"""Signed plans for unattended runs."""
