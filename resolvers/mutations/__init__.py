"""The mutations: one function each, in a file with the mutation's name.

They take the `Context` and plain arguments, return the core's records and raise the core's errors;
``schema.mutation`` converts inputs and payloads. Actions of Support run inside an `AuditedAction`.
"""
