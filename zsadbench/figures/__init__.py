"""Figures as papers print them: records and files -> pictures. Nothing is evaluated here; matplotlib draws."""
