"""What the webhook benchmark is made of.

``sending`` is Stripe and the forgers, in a process of their own; ``shop`` is what exists at Stripe and
changes there; ``panels`` are the people who look meanwhile.
"""
