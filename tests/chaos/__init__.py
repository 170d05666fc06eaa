"""The real processes, killed at random while usage comes in and Stripe misbehaves; then every bill is checked.

``python -m tests.chaos --seconds 60 --seed 1`` makes trouble for a minute and prints what happened.
``parts`` starts the processes and restarts them, ``trouble`` kills them and orders Stripe's faults,
``reporters`` send usage and keep the books of what was acknowledged, ``audit`` compares the bills with
the books, ``run`` puts it all in order. A seed decides which process is killed when and what is sent; what
the machine makes of it is its own.
"""
