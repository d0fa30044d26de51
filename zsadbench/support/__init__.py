"""Tools that know neither images nor anomalies."""
