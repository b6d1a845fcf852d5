"""Files to windows (T, B): sources, parsing, splits, what is kept on disk, batches."""
