"""Simulated Fastn account with data, in this process, for trials and tests without an account.

`Sandbox(now).answer(...)` answers one request; `create_app(sandbox)` is an ASGI application around it. The sandbox has
this project's assumptions about Fastn, so that passing against it proves nothing about the real API.
"""
