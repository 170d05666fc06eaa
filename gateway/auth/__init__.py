"""Authentication: bearer tokens, the issuer's public keys, and the caller of an operation."""
