"""MCP over HTTP: for this machine alone, or for a team whose people sign in.

Stateless: any replica can answer any request. `application` puts it together, `serving` runs it; for a team, `tokens`
says who is calling and `keys` by which keys that is known, `admission` what they may ask for, `tenants` whose account
serves them, as `team` and `team_file` say.
"""
