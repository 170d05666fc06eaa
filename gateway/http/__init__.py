"""HTTP parts that all endpoints share: errors, content negotiation, disconnects, shutdown."""
