"""`python -m lakeloop` is the operator."""

from lakeloop.main import main

if __name__ == "__main__":
    main()
