"""A request becomes records."""
