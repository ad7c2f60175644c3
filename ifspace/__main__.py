"""`python -m ifspace` is the command `ifspace`."""

from ifspace.cli.main import main

if __name__ == "__main__":
    main()
