"""Numbers become text."""
