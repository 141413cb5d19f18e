"""``python -m melastic`` and ``accelerate launch -m melastic``."""

from melastic.cli import main

main()
