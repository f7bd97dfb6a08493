"""What the papers published, and how ours stands beside it."""
