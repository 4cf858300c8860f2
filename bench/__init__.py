"""Steno beside what it is made of: `make bench` measures both in one run and prints the ratios."""
