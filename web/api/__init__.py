"""HTTP -> Control: one module for each kind of object, its handlers and their rows of the route table.

The router and OpenAPI are made from this one table.
"""

from web.api import capture, configuration, events, node, traffic
from web.api.request import Routes

ROUTES: Routes = (*node.ROUTES, *configuration.ROUTES, *traffic.ROUTES, *capture.ROUTES, *events.ROUTES)
