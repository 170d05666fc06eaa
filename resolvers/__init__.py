"""How a field is answered, in three beats: authorise, load, shape.

``authority`` is the one table of who may ask for what; ``context`` carries who asks and what answers;
``loaders`` read. Everything else is one noun a file. What takes more than three beats belongs in ``billing``.
"""
