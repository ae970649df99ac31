"""The compiled reading of implementation, model and driver: the same text, over two arrays of words."""
