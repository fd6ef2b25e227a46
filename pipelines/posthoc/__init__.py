"""After the training: a run in, a run out, so that tables treat both alike."""
