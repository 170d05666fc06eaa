"""What the tests stand on: the sandbox and the gateway as processes."""
