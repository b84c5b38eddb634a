"""`python -m edgeseg`: the command line as a module, which is how `torchrun -m` starts it."""

from edgeseg.cli.main import main

if __name__ == "__main__":
    main()
