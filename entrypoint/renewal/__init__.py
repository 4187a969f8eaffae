"""What ages: certificates by acme.sh (RFC 8555), their deploy hooks, and DKIM keys."""
