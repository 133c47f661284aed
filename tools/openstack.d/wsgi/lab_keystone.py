"""Keystone as a WSGI application for gunicorn."""
import sys

# Keystone parses sys.argv as its own command line, and there it would find gunicorn's options.
del sys.argv[1:]

from keystone.wsgi.api import application  # noqa: E402,F401
