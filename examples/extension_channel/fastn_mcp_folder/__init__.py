"""Approval channel: a person answers in files of a folder."""
