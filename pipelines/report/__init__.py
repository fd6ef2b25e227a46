"""One HTML page of all results, without a network; and a model card of a run."""
