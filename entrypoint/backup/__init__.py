"""The backup: the owner's files as a tree of git (private parts encrypted with age), and back."""
