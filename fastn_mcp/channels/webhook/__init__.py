"""Approval by webhook."""
