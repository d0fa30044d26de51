"""The Python front door: what `import zsadbench` offers, made of the parts that the command line is made of."""
