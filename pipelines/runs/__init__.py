"""Run folders: their files, what may be replaced in them, runs made from others."""
