"""Checks of an account, which the overview and a diagnosis print, and what they look at."""
