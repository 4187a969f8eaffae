"""Key material as values: DKIM keys (RFC 6376, RFC 8463) and certificates."""
