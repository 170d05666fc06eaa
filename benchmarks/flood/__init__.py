"""The parts of the webhook benchmark.

``sending`` is Stripe and the forgers, in a process of their own; ``shop`` is what exists at Stripe and
changes there; ``panels`` are people who read panels meanwhile.
"""
