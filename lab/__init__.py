"""lab - what ablate.py measures with, and how it shows what it found."""
