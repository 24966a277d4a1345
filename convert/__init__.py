"""convert - what export.py reads and writes, a file for each format; model.py is what they have in common."""
