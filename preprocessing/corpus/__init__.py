"""A sample of real Turkish text from pinned, hash-checked packages: cleaned, deduplicated, split by document."""
