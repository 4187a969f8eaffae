"""Which tambo this is: its version, which stands in pyproject.toml alone, and its commit.

The commit is known if the build was told, as `make image` does.
"""

from __future__ import annotations

from entrypoint.common.paths import Paths


def number() -> str:
    """Such as 0.2.0."""
    from importlib import metadata  # 27 ms, which no other verb and no health check has to pay

    return metadata.version("tambo")


def revision(paths: Paths) -> str:
    """The commit, with `-dirty` if there was more than it; empty if it is not known."""
    try:
        return (paths.lib / "revision").read_text().strip()
    except OSError:
        return ""


def text(paths: Paths) -> str:
    """0.2.0 (1ddbda5), or 0.2.0."""
    commit = revision(paths)
    return f"{number()} ({commit})" if commit else number()
