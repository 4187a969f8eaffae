"""The volume: the one reader of /data, with the last good copy of what was edited and is broken."""
