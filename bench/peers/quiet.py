"""A logging configuration that says nothing, for workers whose command line cannot say so."""

ARQ = {"version": 1, "disable_existing_loggers": True, "loggers": {"arq": {"level": "CRITICAL"}}}
