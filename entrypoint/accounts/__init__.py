"""Who may log in, and as whom: permissions to send, and the log-in of a test."""
