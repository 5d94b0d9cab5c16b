"""The operator's screen: a page that any browser shows, told by the station what changes.

Starlette serves it from the station's own event loop; htmx and its SSE extension, both in
``static``, put what the station sends into the page. ``app`` has the pages and what the operator
may do, ``live`` the stream of changes, ``pages`` the HTML, ``guard`` who may see and press what.
"""

from nbiot.station.web.app import Operated, create_app
from nbiot.station.web.server import serve

__all__ = ["Operated", "create_app", "serve"]
