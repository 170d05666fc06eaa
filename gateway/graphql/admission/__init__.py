"""Admission: finds an operation's document, bounds, validates and prices it, and charges its caller."""
