"""`python -m briefly_admin.cli`: the command where no launcher is installed, as in the Procfile."""

from briefly_admin.cli import main

main()
