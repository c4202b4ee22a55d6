"""`python -m mitoda` and the `mitoda` command."""

from mitoda.cli import main

if __name__ == "__main__":
    main()
