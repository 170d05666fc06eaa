"""The schema's object types whose fields have to be answered, one noun a file.

Types that hold only what they were given stand in ``schema.types``. ``links``, ``moments`` and ``skus`` are how
several nouns show a thing of Stripe's, a time of the ledger's and what a line bills.
"""
