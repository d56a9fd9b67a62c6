"""MCP over HTTP for a team, with OpenID Connect.

`application` is what a process serves. `tokens` identifies the caller by the keys of `oidc`, `authentication` checks
what the caller may use, and `tenants` opens the account that `team_config` assigns.
"""
