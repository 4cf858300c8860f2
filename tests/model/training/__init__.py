"""Trains, converts and measures the speech model that ships with Steno."""
