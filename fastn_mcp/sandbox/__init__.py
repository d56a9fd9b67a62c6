"""A Fastn in this process, with data, for trying and testing without an account. Harsher than one hopes.

`Sandbox(now).answer(...)` is one request; `create_app(sandbox, control=False)` is the same as an ASGI application. What
the sandbox believes of Fastn is what this project believes: that it is content proves nothing about the real one.
"""
