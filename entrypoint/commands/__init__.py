"""The verbs, one module a noun. A verb takes its Context when it runs, so --help needs none."""
