"""The server with deadlines that a test can wait for: `python impatient.py PACKAGES SOFT HARD`.

SOFT and HARD limit its open files. Everything else is as the command line starts it, open to everyone.
"""

import resource
import sys
from pathlib import Path

from pypiserver_ng.app import create_app
from pypiserver_ng.config import Config
from pypiserver_ng.logs import configure_logs
from pypiserver_ng.server import Patience, open_socket, reachable_address, serve

PATIENCE = Patience(head=1, body=1, idle=1, reader=2, rest=1, farewell=1)
#: Largest upload in bytes.
MOST = 1_000_000


def main(packages: Path, soft: int, hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    configure_logs(verbosity=0, stream="stderr", file=None, style="text")
    config = Config(
        packages=(packages,),
        state_dir=packages / ".pypiserver-ng",
        authenticate=frozenset(),
        disable_fallback=True,
        max_upload_size=MOST,
    )
    listening = open_socket("127.0.0.1", 0)

    def say_ready() -> None:
        print(f"ready: at http://{reachable_address(listening)}/simple/", file=sys.stderr, flush=True)

    serve(create_app(config).asgi, listening, access_log=False, on_ready=say_ready, patience=PATIENCE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
