"""Files as they are: contents and hashes, JSON, names, archives, images, volumes."""
