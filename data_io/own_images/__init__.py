"""Images and volumes of a user, described so that they are a data set."""
