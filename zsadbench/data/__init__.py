"""Files become samples, pixels and masks."""
