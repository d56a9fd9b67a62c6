"""Ledger in one JSON file, which the processes of one machine share."""
