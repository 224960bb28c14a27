"""`python -m variseq`, which is what `torchrun -m variseq` starts in several processes."""

from variseq.cli import main

if __name__ == "__main__":
    main()
