"""`make up`: the whole system on one machine, with real usage as demo data.

``up`` starts the processes in order and stops them in reverse, ``processes`` supervises them through
``child_process``, ``home`` stores secrets and ports between starts, ``focus_sample`` reads the usage
sample, ``load`` sends it through the public API, ``tokens`` signs the three kinds of token.
"""
