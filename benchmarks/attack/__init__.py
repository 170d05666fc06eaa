"""The parts of the attacker's benchmark.

``attacks`` is the attacker, in a process of its own; ``neighbours`` are the customers whose panels it may not slow.
"""
