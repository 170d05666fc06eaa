"""How a field is answered, in three beats: authorise, load, shape.

``query``, ``mutation`` and ``subscription`` are what can be asked, done and followed. ``nouns`` are the object
types, one a file; ``acts`` are the mutations, one a file; ``loading`` reads what both show, each thing once.
``authority`` is the one table of who may ask for what; ``context`` carries who asks and what answers;
``finding`` and ``searching`` get to a thing from its id or a few words. What takes more than three beats
belongs in ``billing``.
"""
