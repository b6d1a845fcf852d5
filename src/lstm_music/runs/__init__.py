"""What lies on disk of a run: settings, checkpoints, its folder and lock; a run opened again."""
