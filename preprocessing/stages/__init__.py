"""What happens to documents on the way: one file a stage."""
