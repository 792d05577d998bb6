"""What speed costs and what it gives, as ratios that one command reproduces: scripts/bench."""
