"""`fastn-mcp doctor`: what a person would check before trusting the server with an account, in the order they would.

It only looks: what is sent is GET and OPTIONS, and nothing else leaves `looking.py`.
"""
