"""The formats of chasquid's files, and nothing else: what it reads, writes and logs.

Text-format protocol buffers (users, the queue, domaininfo), aliases, the mail log, chasquid.conf.
Pure: text to values and values to text. What chasquid reads must parse there too: a bad file ends
the daemon.
"""
