"""`make up`: everything on one machine, with real usage as demo data.

``up`` starts the parts in order and stops them in reverse, ``processes`` keeps each on a leash,
``home`` remembers secrets and ports between starts, ``focus`` reads the usage sample, ``load`` sends
it in through the public doors, ``tokens`` writes the three kinds of token.
"""
