"""Checks of `fastn-mcp doctor`: settings, network, key and operations of an account, in this order.

They change nothing: `probe.py` sends GET and OPTIONS, and refuses every other method.
"""
