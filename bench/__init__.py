"""How fast each layer is, measured against the others in one process: ratios carry over between machines, speeds do not."""
