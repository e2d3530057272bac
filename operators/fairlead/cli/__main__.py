"""`python -m fairlead.cli`: the command line where its script is not on PATH."""

from fairlead.cli import main

if __name__ == "__main__":
    main()
