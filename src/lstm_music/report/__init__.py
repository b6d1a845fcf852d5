"""The page about runs: what it tells, its files, and the network that composes in a browser."""
