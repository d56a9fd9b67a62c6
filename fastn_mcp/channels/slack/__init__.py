"""Approval in Slack."""
