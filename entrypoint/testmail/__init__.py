"""send-test: one message, submitted as a mail program does and followed to the receiver's reply."""
