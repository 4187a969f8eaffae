"""May this message be sent or taken? The decisions, pure, and the log of what each login sent.

The sender rule (`decide`, `header`), limits, signs of abuse, and what owners granted (`grants`).
What cannot be read with one meaning is refused, never taken for harmless.
"""
