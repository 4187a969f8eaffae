"""What must stand in DNS: records, the one list of them, how they print."""
