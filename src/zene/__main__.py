"""`python -m zene` is `zene`."""

from zene.cli import main

main()
