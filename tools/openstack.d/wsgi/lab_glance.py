"""Glance as a WSGI application for gunicorn and uWSGI.

With LAB_NO_RANGES=1 the filesystem store loses its random reads, as the rbd, swift, s3 and http
stores never had them: every Range is then refused with 400 by Glance's own code.
"""
import os

if os.environ.get("LAB_NO_RANGES") == "1":
    # The class attribute must change before Glance instantiates its stores.
    from glance_store import capabilities
    from glance_store._drivers import filesystem

    filesystem.Store._CAPABILITIES = (
        capabilities.BitMasks.RW_ACCESS | capabilities.BitMasks.DRIVER_REUSABLE)

from sqlalchemy import event
from sqlalchemy.engine import Engine


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def begin_as_a_writer(conn, cursor, statement, parameters, context, executemany):
    """Take SQLite's write lock at the start of every transaction.

    A transaction that reads first and then writes fails at once with "database is locked" when
    another one wrote in between; SQLite's patience covers only the wait for the lock itself.
    """
    return ("BEGIN IMMEDIATE" if statement == "BEGIN" else statement), parameters


from glance.wsgi.api import application  # noqa: E402,F401
