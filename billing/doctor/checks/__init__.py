"""The checks, one module an area: functions that look at one thing each, and their names in ``CHECKS``."""
