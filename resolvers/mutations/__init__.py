"""What can be done, one mutation a file, named for what it does; ``resolvers.mutation`` lists them all.

Support's acts pass ``checking`` and go through ``act``, which writes each into the audit log. ``refusing`` turns
an expected refusal into the `errors` of a payload; ``payloads`` are what all of them answer.
"""
