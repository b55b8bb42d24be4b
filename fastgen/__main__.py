"""`python -m fastgen`: the command `fastgen`."""

from .cli import main

if __name__ == "__main__":
    main()
