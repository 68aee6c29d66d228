"""What a checkpoint is worth, which one to keep, and the page that says so."""
