"""From a model to music: what may follow, how to choose, loops on each backend, decoding."""
