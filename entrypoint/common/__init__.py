"""What every room uses: errors, checked names, paths, files, processes, the log, users and groups.

Knows nothing of mail. Imports nothing of the package but itself.
"""
