"""What a process did, for people and pipelines: gathered as it happens, written when it ends."""
