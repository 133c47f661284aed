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

from glance.wsgi.api import application  # noqa: E402,F401
