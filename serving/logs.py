"""Logs as data, to stderr: one JSON object per line, or readable lines where a person looks at a terminal.

No line may hold a personal value: what is logged are names of places (topic, partition, offset, week), counts, reasons.
"""

import sys

import structlog
from structlog.typing import Processor


def configure() -> None:
    """For the whole process; whoever has a `main` calls it, once."""
    is_terminal = sys.stderr.isatty()
    rendering: Processor = structlog.dev.ConsoleRenderer() if is_terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            rendering,
        ],
    )
