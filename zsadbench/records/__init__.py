"""What is written down, ours and the papers'; computes nothing."""
