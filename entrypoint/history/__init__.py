"""What happened to mail: the store of events, its one writer's buffer, its readers, reports."""
