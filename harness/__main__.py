"""`python -m harness`: the same as the console script `stability`."""

from harness.cli import main

if __name__ == "__main__":
    main()
