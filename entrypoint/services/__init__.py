"""The long-running programs, and the delivery agent."""
