"""zsadbench: one pipeline, exact metrics and paper-style tables for zero-shot anomaly detection methods."""

__version__ = "0.2.0"
