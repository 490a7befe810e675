"""The environment that every started program gets: nothing of the machine's own index configuration.

Built from a short list of what may pass, so that a new variable of a client can never leak in.
"""

import os
from pathlib import Path

_KEPT = ("PATH", "TMPDIR", "TZ", "SYSTEMROOT")


def clean_environment(home: Path) -> dict[str, str]:
    """Environment variables with `home` (made if missing) as the place of every configuration and cache."""
    home.mkdir(parents=True, exist_ok=True)
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_STATE_HOME": str(home / "state"),
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "500",
        "NO_COLOR": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "PYTHONUTF8": "1",
        # The null device as pip's configuration file means: read no configuration file at all.
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_CACHE_DIR": str(home / "cache" / "pip"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "UV_NO_CONFIG": "1",
        "UV_CACHE_DIR": str(home / "cache" / "uv"),
        "UV_PYTHON_DOWNLOADS": "never",
        "TWINE_NON_INTERACTIVE": "1",
        "POETRY_NO_INTERACTION": "1",
        "PDM_CHECK_UPDATE": "0",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
    }
