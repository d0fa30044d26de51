"""A run as one HTML page that needs no network: records -> content -> page. Nothing is evaluated here."""
