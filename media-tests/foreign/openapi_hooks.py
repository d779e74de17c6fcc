"""Bodies that schemathesis has no serializer for: text as it stands."""

import schemathesis


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def text(_context, value):
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")
