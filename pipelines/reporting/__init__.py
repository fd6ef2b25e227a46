"""From run files to tables and pictures; needs neither a backend nor miscnn."""
