"""MCP over HTTP: on this machine with a bearer token, or for a team with OpenID Connect.

Stateless: any replica can answer any request. `app` builds and runs the application. For a team, `tokens` identifies
the caller by the keys of `oidc`, `authentication` checks what the caller may use, and `tenants` opens the account that
`team_config` assigns.
"""
