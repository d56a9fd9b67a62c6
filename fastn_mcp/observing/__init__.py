"""What a collector of telemetry is told, where one is named: spans, metrics and log records.

Nothing here is loaded, and nothing on the way of a call asks for it, unless a start finds where to send it.
"""
