"""OpenTelemetry: spans, metrics and log records for a collector."""
