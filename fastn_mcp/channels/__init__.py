"""Approval channels: elicitation forms, the approval page, terminals and webhooks."""
