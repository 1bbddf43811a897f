"""Names that the parts of Tidegate share on a server. Pure data."""

from __future__ import annotations

HOME = "/srv/tidegate"
METRICS = f"{HOME}/metrics"  # node_exporter's textfiles

NETWORK = "tidegate"
EDGE = "tidegate-edge"
EDGE_HOME = f"{HOME}/edge"
STATUS_PORT = 7809
NGINX_STATUS = "/nginx_status"

LABEL = "dev.tidegate"
LABEL_MANAGED = f"{LABEL}.managed"
LABEL_APP = f"{LABEL}.app"
LABEL_RELEASE = f"{LABEL}.release"
LABEL_SLOT = f"{LABEL}.slot"
LABEL_PROCESS = f"{LABEL}.process"
LABEL_VERSION = f"{LABEL}.version"
LABEL_CONTENT = f"{LABEL}.content"
LABEL_METRICS = f"{LABEL}.metrics"  # "3000/metrics": where a container tells its own figures
LABEL_SERVICES = f"{LABEL}.services"
