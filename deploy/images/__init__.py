"""Images looked into: what a Dockerfile gets wrong, what is inside, how large it travels, what it stands on."""
