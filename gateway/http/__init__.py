"""HTTP parts that all endpoints share: bodies, errors, content negotiation, disconnects."""
