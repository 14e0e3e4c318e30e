"""What is done with a finished run: a study of each use over its unseen tasks, which becomes a section of its report.

It may import `runs` and every room below. A use lives in `wspace/uses/NAME.py`: its `study(run, ...)` measures and gives a
`Section`; a function beside it does the same for one task of a user's. `wspace/cli/uses.py` has the commands. `bench` measures
what the documentation says of speed; `hub` sends runs, zoos and weights to a model hub, and fetches them.
"""
