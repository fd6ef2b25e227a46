"""What a process runs in: backend, versions, packages, signals, streams."""
