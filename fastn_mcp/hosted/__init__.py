"""MCP over HTTP: for this machine alone, or for a team whose people sign in.

Stateless: any replica can answer any request. `app` is the application, and runs it. For a team, `tokens` identifies
the caller by the keys of `oidc`, `authentication` decides what the caller may use, and `tenants` opens the account that
`team_config` names.
"""
