"""The HTTP server: GraphQL over HTTP, WebSocket and SSE, the bulk usage endpoint, health, metrics, pages.

``app`` builds the application; ``auth`` verifies tokens; ``graphql`` serves any Strawberry schema and
knows nothing of billing; ``http`` has what all endpoints share; ``usage_endpoint`` takes NDJSON from
metering; ``response_cache`` stores whole GraphQL responses.
"""
