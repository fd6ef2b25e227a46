"""The one runner of many runs: a Snakemake workflow that only calls `dscpp`."""
