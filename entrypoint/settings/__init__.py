"""The environment: the one reader, with names, types, defaults and every problem at once."""
