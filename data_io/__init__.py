"""From raw files to batches, through MIScnn."""
