"""tambo: renders a mail server's configuration from its environment and keeps it healthy."""
