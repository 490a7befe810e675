"""`python -m pypiserver_ng` is the same program as `pypiserver-ng`."""

from pypiserver_ng.cli import main

if __name__ == "__main__":
    main()
