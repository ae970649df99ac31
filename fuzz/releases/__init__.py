"""The same programs on released engines: generated through the model, run in a subprocess, held against may and must."""
