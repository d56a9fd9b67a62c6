"""The tool `diagnose_workflow`."""
