"""Logs: one line an observation, for people or for machines; never a token, a password or a request's address query."""

from __future__ import annotations

import logging
import sys

import structlog

from lastcall.config import Config


def set_up_logs(config: Config) -> None:
    """Send every log to standard error, from `log_level` upwards, as `log_format` says."""
    level = getattr(logging, config.log_level.upper())
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if config.log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            # The library's own choice prints the variables of every frame, and with them the headers of a request.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if config.log_format == "json" else _unchanged,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries: warnings only, and in the same place.
    logging.basicConfig(
        stream=sys.stderr, level=max(level, logging.WARNING), format="%(levelname)s %(name)s %(message)s"
    )


def _unchanged(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    return event
