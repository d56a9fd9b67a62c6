"""The tool `query`: one SQL statement over the account's lists, run in a process of its own."""
