"""The loop: steps, validation, resuming, ranks, what goes wrong."""
