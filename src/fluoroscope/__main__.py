"""`python -m fluoroscope NAME ARGUMENTS`, for torchrun and srun."""

from fluoroscope.command.program import main

if __name__ == "__main__":
    main()
