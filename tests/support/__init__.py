"""What the tests share: the sandbox and the gateway as processes."""
