"""Approval requests: how an approval is obtained and what it covers."""
