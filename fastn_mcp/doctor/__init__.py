"""`fastn-mcp doctor`: what a person would check before trusting the server with an account, in the order they would.

It changes nothing: `probe.py` sends GET and OPTIONS, and refuses everything else.
"""
