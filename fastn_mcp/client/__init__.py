"""The HTTP client of Fastn's API."""
