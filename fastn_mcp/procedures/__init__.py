"""Tools that combine several API calls."""
