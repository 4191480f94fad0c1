"""The local stack: every part of Inspectline on one machine, without Docker, under supervisord.

Everything lives beneath one folder, `var/` by default (`INSPECTLINE_HOME`), so that several stacks can run side by side
on other ports. `python -m include.stack --help` lists the commands; `make` calls them.
"""
