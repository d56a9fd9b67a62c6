"""Spans, metrics and log records for a collector."""
