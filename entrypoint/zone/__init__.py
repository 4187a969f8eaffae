"""What DNS must say of this server: the records required, judged, printed and published.

A record is defined once, in `required`; the rest takes it from there.
"""
