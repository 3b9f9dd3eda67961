"""The connection between processes. Only here and in parties' rpc files do generated wire types live."""

import os

# Read by the gRPC library when it is first used, so they are set before any module here imports it. See `tls`.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES256-GCM-SHA384"
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # the library's own lines on stderr are not structured
