"""Fastn's records: fields, names, states, targets and dependents."""
